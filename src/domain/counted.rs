//! A number with its noun, for people.

use std::fmt::Display;

/// `1 hour`, `2 hours`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, one: &str) -> String {
    match number == N::from(1) {
        true => format!("{number} {one}"),
        false => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W12
    #[test]
    fn a_count_of_one_has_a_singular_noun() {
        for (number, wanted) in [(0, "0 hours"), (1, "1 hour"), (2, "2 hours")] {
            assert_eq!(counted(number, "hour"), wanted);
        }
    }
}
