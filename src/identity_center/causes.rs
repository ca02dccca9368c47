//! The text of an error of the AWS SDK, for people. Every client of AWS uses it.

use std::error::Error;
use std::io;

const NO_CREDENTIALS: &str = "no AWS credentials";
/// The text of the SDK when no source of credentials has any.
const NOT_LOADED: &str = "the credential provider was not enabled";
/// The texts of the SDK when a source of credentials has some that jit cannot use.
const NOT_USABLE: [&str; 4] = [
    "credentials provider was not properly configured",
    "an error occurred while loading credentials",
    "unexpected credentials error",
    "credentials provider timed out",
];

/// The causes of an error, from the outermost to the first, each once.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for said in chain(error).map(ToString::to_string) {
        if !told.iter().any(|before| before.contains(&said)) {
            told.push(said);
        }
    }
    told.join(": ")
}

/// Why a call to AWS failed, in one line, with what to do if jit lacks credentials or a region.
pub fn aws_causes(error: &(dyn Error + 'static)) -> String {
    let why = unsent(error).or_else(|| no_connection(error));
    why.unwrap_or_else(|| one_line(&causes(error)))
}

/// Why jit could not send a call, because it has no credentials or no region; none if it sent
/// the call, or tried to.
pub fn unsent(error: &(dyn Error + 'static)) -> Option<String> {
    let told: Vec<String> = chain(error).map(ToString::to_string).collect();
    let has = |words: &str| told.iter().any(|said| said.contains(words));
    if has(NOT_LOADED) {
        return Some(format!(
            "{NO_CREDENTIALS}: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or run jit where AWS gives it \
             a role"
        ));
    }
    if NOT_USABLE.iter().any(|words| has(words)) || has("identity cache") {
        let first = one_line(told.last().map_or("", String::as_str));
        return Some(format!(
            "{NO_CREDENTIALS}: {first}; sign in to AWS, or check AWS_PROFILE"
        ));
    }
    let lacks_region = told
        .iter()
        .any(|said| said.to_lowercase().contains("missing region"));
    lacks_region.then(|| "no AWS region: set AWS_REGION".to_owned())
}

/// Why there is no connection, in the words of the operating system.
fn no_connection(error: &(dyn Error + 'static)) -> Option<String> {
    let told: Vec<String> = chain(error).map(ToString::to_string).collect();
    if told.iter().any(|said| said.contains("dns error")) {
        let next = "check AWS_REGION, AWS_ENDPOINT_URL and the DNS of this machine";
        return Some(format!(
            "no connection: the name of the server cannot be resolved; {next}"
        ));
    }
    let connecting = told
        .iter()
        .position(|said| said.contains("tcp connect error"))?;
    let why = chain(error).find_map(|cause| cause.downcast_ref::<io::Error>())?;
    let to = chain(error).nth(connecting).and_then(address);
    let to = to.map_or_else(String::new, |address| format!(" to {address}"));
    Some(format!("no connection{to}: {}", why.kind()))
}

/// The address that the HTTP client tried. Only the debug text of its error contains it:
/// `ConnectError("tcp connect error", 127.0.0.1:8000, …)`.
fn address(error: &(dyn Error + 'static)) -> Option<String> {
    let shown = format!("{error:?}");
    let mut parts = shown.split(", ");
    let address = parts.find_map(|part| part.parse::<std::net::SocketAddr>().ok())?;
    Some(address.to_string())
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// The SDK writes lists over several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: String,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn layers(texts: &[&str]) -> Layer {
        let (text, rest) = texts.split_first().unwrap();
        let source = (!rest.is_empty()).then(|| layers(rest).into());
        let text = (*text).to_owned();
        Layer { text, source }
    }

    // H6
    #[test]
    fn a_call_without_credentials_or_region_names_what_to_set() {
        let chain = "no credentials found in chain. Attempted:\n - Environment\n - Profile";
        let none = layers(&["dispatch failure", "other", NOT_LOADED, chain]);
        let told = aws_causes(&none);
        assert!(
            told.starts_with("no AWS credentials: set AWS_PROFILE"),
            "{told}"
        );
        assert!(
            !told.contains('\n') && !told.contains("Attempted"),
            "{told}"
        );
        let profile = "profile `ops` was not defined";
        let odd = layers(&["dispatch failure", "other", NOT_USABLE[0], profile]);
        let told = aws_causes(&odd);
        assert!(
            told.starts_with(&format!("no AWS credentials: {profile}; ")),
            "{told}"
        );
        let region = layers(&["failed to construct request", "Missing Region"]);
        assert_eq!(aws_causes(&region), "no AWS region: set AWS_REGION");
        let late = layers(&["request has timed out", "operation timeout"]);
        assert_eq!(unsent(&late), None);
        assert_eq!(
            aws_causes(&late),
            "request has timed out: operation timeout"
        );
    }
}
