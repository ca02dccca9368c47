//! GET /requests: every filter, alone and combined, and page tokens that are authenticated.

use serde_json::json;

use crate::common::{CHANNEL, Caller, Reply, Setup, write_history};

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
async fn filters_combine() {
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
}

// G17
#[tokio::test]
async fn an_unknown_or_invalid_filter_is_refused() {
    let (_jit, caller) = Setup::default().bound().await;
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

/// The query of the next page, from the header `Link`.
fn next_page(reply: &Reply) -> Option<String> {
    let link = reply.headers.get("link")?.to_str().unwrap();
    let query = link.strip_prefix("<?").unwrap();
    Some(query.strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

/// N3: the answer to one call is bounded, and the pages have every event once and in order.
#[tokio::test]
async fn a_long_history_comes_in_pages_whole_and_in_order() {
    let jit = Setup::default().start();
    let caller = jit.caller();
    let wanted = json!(write_history(&jit.database(), "long", 2_500));
    let path = "/requests/config%23long/audit";
    for (first, sizes) in [
        ("", vec![1000, 1000, 500]),
        ("limit=999", vec![999, 999, 502]),
        ("limit=1000", vec![1000, 1000, 500]),
    ] {
        let (mut seen, mut pages) = (Vec::new(), Vec::new());
        let mut query = Some(first.to_owned());
        while let Some(asked) = query {
            let reply = caller.get(&format!("{path}?{asked}")).await;
            let events = reply.is(200).as_array().unwrap().clone();
            pages.push(events.len());
            seen.extend(events);
            query = next_page(&reply);
        }
        assert_eq!(pages, sizes, "{first}");
        assert!(json!(seen) == wanted, "{first}");
    }
    // A caller can name the last event itself; after the last one there is an empty page.
    let last = &wanted[2_499];
    let word = |name: &str| last[name].as_str().unwrap();
    let place = format!("{}#{}", word("event_time"), word("event_id")).replace('#', "%23");
    let reply = caller.get(&format!("{path}?after={place}")).await;
    assert_eq!((reply.is(200), next_page(&reply)), (json!([]), None));
    // An ordinary history comes whole.
    write_history(&jit.database(), "short", 1000);
    let reply = caller.get("/requests/config%23short/audit").await;
    assert_eq!(reply.is(200).as_array().unwrap().len(), 1000);
    assert_eq!(next_page(&reply), None);
    let unknown = "/requests/config%23other/audit";
    caller.get(unknown).await.is(404);
    let place = place.replace("long", "other");
    caller
        .get(&format!("{unknown}?after={place}"))
        .await
        .is(404);
}

// N3
#[tokio::test]
async fn page_parameters_out_of_range_are_refused_with_words() {
    let (jit, caller) = Setup::default().bound().await;
    let place = write_history(&jit.database(), "long", 1)[0]
        .sort_key()
        .replace('#', "%23");
    let audit = "/requests/config%23long/audit?";
    let accounts = format!("/config/accounts?channel_id={CHANNEL}&");
    for (query, words) in [
        ("limit=0", "limit must be 1 to 1000"),
        ("limit=1001", "limit must be 1 to 1000"),
        ("limit=-1", "\"-1\""),
        ("limit=many", "\"many\""),
        ("limit=5&limit=6", "more than once"),
        ("after=", "after is empty"),
        ("after=%zz", "percent-encoded"),
        ("next_token=x", "next_token is not"),
    ] {
        for path in [audit, &accounts] {
            let refused = caller.get(&format!("{path}{query}")).await.is(400);
            let told = refused["message"].as_str().unwrap();
            assert!(told.contains(words), "{path}{query}: {told}");
        }
    }
    for after in [
        "1",
        "x%23000001-config%23long",
        &place.replace("000001", "1"),
        &place.replace("long", "other"),
    ] {
        let refused = caller.get(&format!("{audit}after={after}")).await.is(400);
        let told = refused["message"].as_str().unwrap();
        assert!(told.starts_with("after must name an event"), "{told}");
    }
    let refused = caller.get(&format!("{accounts}after=12")).await.is(400);
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("12 digits"), "{told}");
}

// N3
#[tokio::test]
async fn the_accounts_of_a_channel_come_in_pages() {
    let (_jit, caller) = Setup::default().start_with_accounts(7).await;
    let mut seen = Vec::new();
    let mut query = Some(format!("channel_id={CHANNEL}&limit=3"));
    while let Some(asked) = query {
        let reply = caller.get(&format!("/config/accounts?{asked}")).await;
        let page = reply.is(200).as_array().unwrap().clone();
        assert!(page.len() <= 3, "{page:?}");
        seen.extend(page);
        assert!(seen.len() <= 7, "a page repeats an account: {seen:?}");
        query = next_page(&reply);
    }
    let path = format!("/config/accounts?channel_id={CHANNEL}");
    let whole = caller.get(&path).await.is(200);
    assert_eq!(
        (json!(seen), whole.as_array().unwrap().len()),
        (whole.clone(), 7)
    );
    // H7: all sets are allowed, and the answer names them.
    assert_eq!(
        whole[0]["allowed_permission_sets"],
        json!(["admin", "readonly"])
    );
    assert_eq!(whole[0].get("permission_sets"), None);
}
