//! The text of an error of the AWS SDK, for people.

use std::error::Error;

/// The causes of an error, from the outermost to the first, each once.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !told.iter().any(|before| before.contains(&said)) {
            told.push(said);
        }
        cause = error.source();
    }
    told.join(": ")
}
