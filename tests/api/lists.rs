//! GET /requests: every filter, alone and combined, and page tokens that are authenticated.

use serde_json::json;

use crate::common::{Caller, Setup};

async fn ids(caller: &Caller, query: &str) -> Vec<String> {
    let page = caller.get(&format!("/requests?{query}")).await.is(200);
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["request_id"].as_str().unwrap().to_owned())
        .collect()
}

// G17
#[tokio::test]
async fn filters_combine_and_an_unknown_filter_is_refused() {
    let (_jit, caller) = Setup::default().bound().await;
    let alice = caller.request().await;
    let dave = caller
        .request_with(
            json!({"requester_mm_user_id": "dave", "requester_email": "Dave@Example.com"}),
        )
        .await;
    caller.deny(&dave).await.is(200);
    let here = "channel_id=town-square";
    assert_eq!(ids(&caller, here).await, [dave.clone(), alice.clone()]);
    assert_eq!(
        ids(&caller, &format!("{here}&status=DENIED")).await,
        std::slice::from_ref(&dave)
    );
    assert_eq!(
        ids(&caller, "requester_email=dave%40example.com").await,
        std::slice::from_ref(&dave)
    );
    let both = format!("{here}&status=PENDING&requester_email=dave@example.com");
    assert!(ids(&caller, &both).await.is_empty());
    assert_eq!(
        ids(&caller, &format!("request_id={alice}")).await,
        std::slice::from_ref(&alice)
    );
    assert_eq!(
        ids(&caller, "start_date=2020-01-01&end_date=2999-12-31")
            .await
            .len(),
        2
    );
    assert!(ids(&caller, "end_date=2020-01-01").await.is_empty());
    let page = caller
        .get(&format!("/requests?{here}&status=DENIED"))
        .await
        .is(200);
    assert_eq!(
        page["filters"],
        json!({"channel_id": "town-square", "status": "DENIED"})
    );
    assert!(page.get("next_token").is_none());

    for query in [
        "",
        "limit=5",
        "status=granted",
        "status=GONE",
        "account_id=5",
        "request_id=x",
        "start_date=yesterday",
        "channel_id=",
        "channel_id=a&channel_id=b",
        "chanel_id=a",
        "channel_id=a&limit=0",
        "channel_id=a&limit=201",
        "channel_id=a&limit=x",
        "channel_id=%zz",
        "channel_id=a&next_token=x",
    ] {
        caller.get(&format!("/requests?{query}")).await.is(400);
    }
}

#[tokio::test]
async fn pages_are_complete_and_forged_page_tokens_are_refused() {
    let (jit, caller) =
        Setup::with("[keys.other]\nsecret = \"another-secret-another-secret-aa\"\n")
            .bound()
            .await;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(caller.request().await);
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut query = "channel_id=town-square&limit=3".to_owned();
    let mut tokens = Vec::new();
    loop {
        let page = caller.get(&format!("/requests?{query}")).await.is(200);
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["request_id"].as_str().unwrap().to_owned()),
        );
        let Some(token) = page["next_token"].as_str() else {
            break;
        };
        tokens.push(token.to_owned());
        query = format!("channel_id=town-square&limit=3&next_token={token}");
    }
    assert_eq!((seen, tokens.len()), (made, 2));

    let token = &tokens[0];
    let mut altered = token.clone().into_bytes();
    altered[4] = if altered[4] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    for forged in [altered.as_str(), &token[1..], "AAAA", ""] {
        let query = format!("/requests?channel_id=town-square&next_token={forged}");
        caller.get(&query).await.is(400);
    }
    // A page token is valid only with the same filters and the same key.
    caller
        .get(&format!("/requests?status=PENDING&next_token={token}"))
        .await
        .is(400);
    let other = Caller::new(&jit.url, "other", "another-secret-another-secret-aa");
    other
        .get(&format!(
            "/requests?channel_id=town-square&next_token={token}"
        ))
        .await
        .is(400);
}

// K12: one unreadable record does not make the list fail.
#[tokio::test]
async fn a_list_names_unreadable_records() {
    let (jit, caller) = Setup::default().bound().await;
    let (spoilt, good) = (caller.request().await, caller.request().await);
    let db = rusqlite::Connection::open(jit.database()).unwrap();
    let sql = "UPDATE jit_requests SET doc = '{}' WHERE request_id = ?1";
    assert_eq!(db.execute(sql, [&spoilt]), Ok(1));
    let page = caller.get("/requests?channel_id=town-square").await.is(200);
    assert_eq!(page["unreadable"], json!([spoilt]));
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["request_id"], good.as_str());
    let whole = caller
        .get(&format!("/requests?request_id={good}"))
        .await
        .is(200);
    assert!(whole.get("unreadable").is_none(), "{whole}");
    let metrics = caller.metrics().await.text;
    let counted = metrics.contains("jit_unreadable_records_total{kind=\"request\"} 1");
    assert!(counted, "{metrics}");
}
