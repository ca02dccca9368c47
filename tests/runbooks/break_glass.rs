//! The page about break-glass: each of the three options removes the access, and the checks show
//! that.

use serde_json::Value;

use crate::common::aws::{ADMIN, Aws, INSTANCE};
use crate::common::dynamo::Tables;
use crate::common::lambda::{Cloud, Process, change, minute};
use crate::common::moto::Moto;
use crate::common::{ACCOUNT, Caller, SECRET, Setup};
use crate::page::Page;
use crate::stage::Stage;

const OPERATOR: &str = "fedcba98765432100123456789abcdef";

struct Night {
    aws: Aws,
    cloud: Cloud,
    setup: Setup,
    process: Option<Process>,
    caller: Caller,
    stage: Stage,
    id: String,
    _moto: Moto,
}

/// jit runs as a function, on tables with the names of production.
async fn night() -> Night {
    let (aws, moto, cloud) = (Aws::quick().await, Moto::start(), Cloud::open().await);
    let tables = Tables::usually_named().made().await;
    let mut variables = cloud.environment();
    variables.extend([
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto.url.clone()),
        ("JIT_CLIENT__KEY_ID", "operator".into()),
        ("JIT_CLIENT__SECRET_ID", "jit/keys/operator".into()),
    ]);
    let setup = Setup {
        aws: Some(aws.clone()),
        dynamo: Some(tables),
        more: "[keys.operator]\nsecret_id = \"jit/keys/operator\"\nscopes = [\"read\", \"revoke\"]"
            .into(),
        variables,
        ..Setup::default()
    };
    let stage = Stage::with(&setup);
    let key = stage.run(&format!(
        "aws secretsmanager create-secret --name jit/keys/operator --secret-string {OPERATOR}"
    ));
    assert_eq!(key.code, 0, "{}", key.err);
    let process = Process::start(&cloud, &setup);
    let gateway = cloud.gateway("$default").await;
    let caller = Caller::new(&gateway, "plugin", SECRET);
    caller.bind().await;
    let id = caller.granted().await;
    for (name, value) in [
        ("ID", id.as_str()),
        ("ME", "sec@example.com"),
        ("INSTANCE", INSTANCE),
        ("SET", ADMIN),
        ("JIT_VIA", "lambda:jit-api"),
    ] {
        stage.set(name, value);
    }
    assert_eq!(aws.assignments().len(), 1);
    Night {
        aws,
        cloud,
        setup,
        process: Some(process),
        caller,
        stage,
        id,
        _moto: moto,
    }
}

impl Night {
    /// Prepares another request.
    async fn again(&mut self) {
        self.id = self.caller.granted().await;
        self.stage.set("ID", &self.id);
        assert_eq!(self.aws.assignments().len(), 1);
    }

    /// The record, the audit and AWS agree, by the commands of the page.
    fn is_verified(&self, page: &Page) {
        assert!(self.aws.assignments().is_empty());
        let said = page.play("Verification", &self.stage);
        let mut told = serde_json::Deserializer::from_str(&said.out).into_iter::<Value>();
        let record = told.next().unwrap().unwrap();
        assert_eq!(record["Item"]["status"]["S"], "REVOKED", "{}", said.out);
        let rows = told.next().unwrap().unwrap();
        let rows = rows["Items"].as_array().unwrap();
        let last = rows.last().unwrap()["event_type"]["S"].as_str().unwrap();
        assert!(["REVOKED", "CLEANED_UP"].contains(&last), "{last}");
        let listed = told.next().unwrap().unwrap();
        assert_eq!(listed, serde_json::json!([]));
        assert!(said.out.contains("1 audit chain verified"), "{}", said.out);
    }
}

// P6
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_break_glass_md_run() {
    let page = Page::open("break-glass");
    let mut night = night().await;
    page.play("Before you begin", &night.stage);

    let answered = page
        .send_command("Option 1: Mattermost", &night.caller, &night.id)
        .await;
    assert_eq!(answered.is(200)["status"], "REVOKED");
    night.is_verified(&page);

    night.again().await;
    let said = page.play("Option 2: straight to Lambda", &night.stage);
    assert!(said.out.contains("REVOKED"), "{}", said.out);
    night.is_verified(&page);

    night.again().await;
    page.play("The same by hand", &night.stage);
    assert!(night.stage.read("answer.json").contains("REVOKED"));
    night.is_verified(&page);

    without_a_process(&mut night, &page).await;

    // H1, H2
    night.again().await;
    night.stage.set("WHO", "alice@example.com");
    let said = page.play("All access of a person", &night.stage);
    assert!(said.out.contains("REVOKED"), "{}", said.out);
    night.is_verified(&page);

    // The invocation of each minute writes the head log.
    night.cloud.event(&minute()).await.answer();
    let said = page.play("After the incident", &night.stage);
    assert!(
        night.stage.read("events.jsonl").contains(&night.id),
        "{}",
        said.out
    );

    // The store cannot be reached either.
    night.again().await;
    night.stage.set("ACCOUNT", ACCOUNT);
    night
        .stage
        .set("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9");
    page.play("When the store is gone as well", &night.stage);
    assert!(night.aws.assignments().is_empty());
    let row: Value = serde_json::from_str(&night.stage.read("row.json")).unwrap();
    assert_eq!(row["details"]["requester_email"], "alice@example.com");
    page.ends();
}

/// No process of jit runs while the operator removes the access.
async fn without_a_process(night: &mut Night, page: &Page) {
    night.again().await;
    night.process.take().unwrap().kill();
    let said = page.play("Option 3: AWS by hand", &night.stage);
    assert!(
        said.out
            .contains(&format!("admin in {ACCOUNT} for alice@example.com")),
        "{}",
        said.out
    );
    assert!(night.aws.assignments().is_empty());
    page.play("Clean-up", &night.stage);
    night.is_verified(page);
    let again = page.play("Clean-up", &night.stage);
    assert!(again.out.contains("already REVOKED"), "{}", again.out);

    // The operator uses Amazon's command line alone. jit handles the written status afterwards.
    night.process = Some(Process::start(&night.cloud, &night.setup));
    night.again().await;
    page.play("Option 3: AWS by hand", &night.stage);
    page.play("Clean-up with Amazon's command line alone", &night.stage);
    night.cloud.event(&change(&night.id)).await.answer();
    let told = night.caller.until_told(&night.id, "REVOKED").await;
    assert_eq!(told["details"]["source"], "changed outside jit");
    night.is_verified(page);
}
