//! The permission set that a person means by a typed word, in chat and at the terminal.

/// The meaning of a typed word among the known permission sets.
#[derive(Debug, PartialEq, Eq)]
pub enum TypedSet<'s> {
    Known(&'s str),
    /// Names that differ only in their case from each other, and from the word.
    Several(Vec<&'s str>),
    Unknown,
}

impl<'s> TypedSet<'s> {
    /// The exact name comes first, then a name in another case.
    pub fn of(word: &str, known: impl Iterator<Item = &'s str>) -> Self {
        let same: Vec<&str> = known.filter(|set| set.eq_ignore_ascii_case(word)).collect();
        if let Some(set) = same.iter().find(|set| **set == word) {
            return Self::Known(set);
        }
        match same.as_slice() {
            [] => Self::Unknown,
            [only] => Self::Known(only),
            [_, _, ..] => Self::Several(same),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_name_comes_first_and_names_in_another_case_must_be_one() {
        let of = |word| TypedSet::of(word, ["Admin", "admin", "read"].into_iter());
        assert_eq!(of("admin"), TypedSet::Known("admin"));
        assert_eq!(of("READ"), TypedSet::Known("read"));
        assert_eq!(of("ADMIN"), TypedSet::Several(vec!["Admin", "admin"]));
        assert_eq!(of("write"), TypedSet::Unknown);
    }
}
