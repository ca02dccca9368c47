//! The template's tables agree with those of the program.

use std::collections::BTreeMap;

use jit::store::dynamodb::{AttributeKind, Index, Keeping, KeySchema, Shows, Table};
use serde_json::{Value, json};

use crate::template;

fn schema(key: KeySchema) -> Value {
    let kinds = ["HASH", "RANGE"].into_iter();
    key.attributes()
        .zip(kinds)
        .map(|(attribute, kind)| json!({"AttributeName": attribute.name, "KeyType": kind}))
        .collect()
}

/// A table as CloudFormation declares it.
fn declared(table: Table) -> Value {
    let definition = table.definition();
    let keys = definition.indexes.iter().map(|index| index.key);
    let kinds: BTreeMap<&str, &str> = std::iter::once(definition.key)
        .chain(keys)
        .flat_map(KeySchema::attributes)
        .map(|attribute| match attribute.kind {
            AttributeKind::Text => (attribute.name, "S"),
            AttributeKind::Number => (attribute.name, "N"),
        })
        .collect();
    let index = |index: &Index| {
        let projection = match index.shows {
            Shows::Keys => json!({"ProjectionType": "KEYS_ONLY"}),
            Shows::Everything => json!({"ProjectionType": "ALL"}),
            Shows::Also(names) => json!({"ProjectionType": "INCLUDE", "NonKeyAttributes": names}),
        };
        json!({"IndexName": index.name, "KeySchema": schema(index.key), "Projection": projection})
    };
    let mut properties = json!({
        "TableName": {"Fn::Sub": format!("${{TablePrefix}}{}", table.as_str())},
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": kinds
            .iter()
            .map(|(name, kind)| json!({"AttributeName": name, "AttributeType": kind}))
            .collect::<Value>(),
        "KeySchema": schema(definition.key),
    });
    if !definition.indexes.is_empty() {
        let indexes = definition.indexes.iter().map(index).collect::<Value>();
        properties["GlobalSecondaryIndexes"] = indexes;
    }
    if definition.keeping == Keeping::ForGood {
        properties["DeletionProtectionEnabled"] = true.into();
        let kept = json!({"PointInTimeRecoveryEnabled": true});
        properties["PointInTimeRecoverySpecification"] = kept;
    }
    if let Some(attribute) = definition.forgets_by {
        let forgets = json!({"AttributeName": attribute, "Enabled": true});
        properties["TimeToLiveSpecification"] = forgets;
    }
    properties
}

#[test]
fn the_template_declares_the_same_tables() {
    let template = template::written();
    let mut found: BTreeMap<String, Value> = template["Resources"]
        .as_object()
        .unwrap()
        .values()
        .filter(|resource| resource["Type"] == "AWS::DynamoDB::Table")
        .map(|resource| {
            let name = resource["Properties"]["TableName"]["Fn::Sub"].as_str();
            (name.unwrap().to_owned(), resource.clone())
        })
        .collect();
    for table in Table::ALL {
        let name = format!("${{TablePrefix}}{}", table.as_str());
        let mut resource = found.remove(&name).expect(&name);
        // The order of the attributes does not matter.
        let attributes = resource["Properties"]["AttributeDefinitions"]
            .as_array_mut()
            .unwrap();
        attributes.sort_by_key(|one| one["AttributeName"].as_str().unwrap().to_owned());
        let streams = resource["Properties"]
            .as_object_mut()
            .unwrap()
            .remove("StreamSpecification");
        // The stream invokes the worker; jit serve needs no stream.
        let wanted = json!({"StreamViewType": "NEW_IMAGE"});
        let wanted = (table == Table::Requests).then_some(wanted);
        assert_eq!(streams, wanted, "{name}");
        assert_eq!(resource["Properties"], declared(table), "{name}");
        let policy = match table.definition().keeping {
            Keeping::ForGood => "Retain",
            Keeping::ForNow => "Delete",
        };
        assert_eq!(resource["DeletionPolicy"], policy, "{name}");
        assert_eq!(resource["UpdateReplacePolicy"], policy, "{name}");
    }
    assert!(
        found.is_empty(),
        "jit does not use these tables: {:?}",
        found.keys()
    );
}
