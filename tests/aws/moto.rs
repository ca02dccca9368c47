//! The life of a request against moto, another imitation of AWS: checks that each call has the
//! documented form. Moto makes assignments at once and has no faults.

use std::sync::Arc;

use aws_sdk_identitystore::types::{Email, Name};
use aws_sdk_ssoadmin::config::{Credentials, Region, SharedCredentialsProvider};
use jit::identity_center::sdk::environment;

use crate::common::moto::Moto;
use crate::common::{ACCOUNT, Jit, SECRET};

async fn alice(people: &aws_sdk_identitystore::Client, store: &str) -> String {
    let address = Email::builder()
        .value("alice@example.com")
        .primary(true)
        .build();
    let made = people
        .create_user()
        .identity_store_id(store)
        .user_name("alice@example.com")
        .display_name("Alice")
        .name(Name::builder().given_name("Alice").family_name("A").build())
        .emails(address)
        .send()
        .await
        .unwrap();
    made.user_id().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_granted_and_revoked_at_moto() {
    let moto = Moto::start();
    let credentials = Credentials::new("AKIAEXAMPLE", "example", None, None, "test");
    let config = environment()
        .endpoint_url(&moto.url)
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .load()
        .await;
    let assignments = aws_sdk_ssoadmin::Client::new(&config);
    let people = aws_sdk_identitystore::Client::new(&config);
    let instances = assignments.list_instances().send().await.unwrap();
    let instance = &instances.instances()[0];
    let (arn, store) = (
        instance.instance_arn().unwrap(),
        instance.identity_store_id().unwrap(),
    );
    let user = alice(&people, store).await;
    // The ARNs of moto's own permission sets have another form than those of AWS; moto accepts any
    // ARN.
    let set = arn.replace(":instance/", ":permissionSet/") + "/ps-1111111111111111";

    let folder = Arc::new(tempfile::tempdir().unwrap());
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\n\
         [identity_center]\ninstance_arn = \"{arn}\"\nidentity_store_id = \"{store}\"\n\
         [permission_sets]\nadmin = \"{set}\"\n[keys.plugin]\nsecret = \"{SECRET}\"\n",
        folder.path().join("jit.db")
    );
    std::fs::write(folder.path().join("jit.toml"), text).unwrap();
    let environment = [
        ("AWS_ENDPOINT_URL", moto.url.clone()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".into()),
        ("AWS_SECRET_ACCESS_KEY", "example".into()),
    ];
    let jit = Jit::start_with(folder, &environment);
    let caller = jit.caller();
    caller.bind().await;
    let listed = async || {
        let listed = assignments
            .list_account_assignments()
            .instance_arn(arn)
            .account_id(ACCOUNT)
            .permission_set_arn(&set);
        listed.send().await.unwrap().account_assignments().to_vec()
    };
    let id = caller.granted().await;
    let there = listed().await;
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].principal_id(), Some(user.as_str()));
    assert_eq!(caller.revoke(&id).await.is(200)["status"], "REVOKED");
    assert!(listed().await.is_empty());
}
