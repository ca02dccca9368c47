//! Typed commands: the text after `/jit` is parsed, the request is found, and the person gets
//! an answer.

mod answer;
mod bindings;
mod find;
pub mod form;
mod parts;
mod request_line;
pub mod requests;
pub mod slash;
pub mod time;
pub mod words;
