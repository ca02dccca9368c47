//! `jit sign`: prints the headers of a signed call, for curl and other clients.

use std::io::Read;

use reqwest::Method;
use serde_json::{Map, Value};

use super::arguments::Sign;
use super::client::headers;
use super::output::tell;
use super::{CliContext, Failure};
use crate::clock::{Clock, SystemClock};
use crate::signature::{self, Scheme};

pub(super) async fn sign(context: &CliContext, sign: &Sign) -> Result<(), Failure> {
    let client = context.client().await?;
    let method = sign.method.to_uppercase();
    let method: Method = method
        .parse()
        .map_err(|_| Failure::Usage(format!("{:?} is not an HTTP method", sign.method)))?;
    if !sign.path.starts_with('/') {
        let why = format!("the path must begin with a slash: /{}", sign.path);
        return Err(Failure::Usage(why));
    }
    let body = body(sign)?;
    let scheme = if sign.v1 { Scheme::V1 } else { Scheme::V2 };
    let headers = headers(&client, scheme, &method, &sign.path, &body);
    let value: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    let url = format!("{}{}", client.url, sign.path);
    tell(&format!(
        "signed with key {} for {method} {}: valid for one call, until {}",
        client.key_id,
        sign.path,
        SystemClock.now() + signature::WINDOW
    ));
    let text = || match sign.curl {
        false => headers
            .map(|(name, value)| format!("{name}: {value}"))
            .join("\n"),
        true => curl(sign, &method, &url, &headers),
    };
    context.output.print(text, &Value::Object(value))
}

fn body(sign: &Sign) -> Result<Vec<u8>, Failure> {
    let Some(file) = &sign.body else {
        return Ok(Vec::new());
    };
    let mut body = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut body))
    };
    read.map_err(|why| Failure::Failed(format!("jit cannot read {}: {why}", file.display())))?;
    Ok(body)
}

fn curl(sign: &Sign, method: &Method, url: &str, headers: &[(&str, String); 4]) -> String {
    let mut words = vec!["curl -sS -X".to_owned(), method.to_string(), quoted(url)];
    for (name, value) in headers {
        words.push(format!("-H {}", quoted(&format!("{name}: {value}"))));
    }
    if let Some(file) = &sign.body {
        words.push("-H 'Content-Type: application/json'".into());
        // --data would remove the line breaks, and the signature would be wrong.
        words.push(format!(
            "--data-binary {}",
            quoted(&format!("@{}", file.display()))
        ));
    }
    words.join(" ")
}

/// Quoted as one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
