//! The modules of the crate, and which of them import from which.

use std::collections::{BTreeMap, BTreeSet};

/// The code of each module by its path, such as `http::signed`.
pub struct Modules {
    code: BTreeMap<String, String>,
    /// The target of each name that a module imports or re-exports.
    names: BTreeMap<(String, String), Vec<String>>,
}

/// One imported path, and the name under which it is used.
struct Import<'a> {
    path: Vec<&'a str>,
    name: &'a str,
}

impl Modules {
    pub fn new(code: BTreeMap<String, String>) -> Self {
        let names = BTreeMap::new();
        let mut modules = Self { code, names };
        for (module, code) in &modules.code {
            let tokens = tokens(code);
            for at in (0..tokens.len()).filter(|at| tokens[*at] == "use") {
                for import in imports(&tokens, at + 1) {
                    let key = (module.clone(), import.name.to_owned());
                    modules.names.insert(key, absolute(module, &import.path));
                }
            }
        }
        modules
    }

    /// For each module, the modules with the same parent from which it or a module inside it
    /// imports.
    pub fn uses(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, code) in &self.code {
            let tokens = tokens(code);
            for at in (0..tokens.len()).filter(|at| starts_path(&tokens, *at)) {
                for import in imports(&tokens, at) {
                    let Some(owner) = self.owner(absolute(module, &import.path)) else {
                        continue;
                    };
                    if let Some((user, used)) = siblings(module, &owner) {
                        uses.entry(user).or_default().insert(used);
                    }
                }
            }
        }
        uses
    }

    /// The modules of each cycle.
    pub fn cycles(&self) -> BTreeSet<Vec<String>> {
        let uses = self.uses();
        let mut cycles = BTreeSet::new();
        for start in uses.keys() {
            let mut paths = vec![vec![start]];
            let mut seen = BTreeSet::new();
            while let Some(path) = paths.pop() {
                for next in uses.get(path[path.len() - 1]).into_iter().flatten() {
                    if next == start {
                        let mut cycle: Vec<String> = path.iter().copied().cloned().collect();
                        cycle.sort();
                        cycles.insert(cycle);
                    } else if seen.insert(next) {
                        paths.push(path.iter().copied().chain([next]).collect());
                    }
                }
            }
        }
        cycles
    }

    /// The module that defines what this path names; none if it is no path of this crate.
    fn owner(&self, mut path: Vec<String>) -> Option<String> {
        loop {
            let is_module = |length: &usize| self.code.contains_key(&path[..*length].join("::"));
            let length = (1..=path.len()).rev().find(is_module)?;
            let module = path[..length].join("::");
            let name = path.get(length).cloned().unwrap_or_default();
            let target = self.names.get(&(module.clone(), name));
            match target.filter(|target| target[..] != path[..=length]) {
                Some(target) => path = [target, &path[length + 1..]].concat(),
                None => return Some(module),
            }
        }
    }
}

/// The two modules below the common parent; none if one module contains the other.
fn siblings(user: &str, used: &str) -> Option<(String, String)> {
    let user: Vec<&str> = user.split("::").collect();
    let used: Vec<&str> = used.split("::").collect();
    let common = user.iter().zip(&used).take_while(|(a, b)| a == b).count();
    let below = |path: &[&str]| path.get(..=common).map(|path| path.join("::"));
    Some((below(&user)?, below(&used)?))
}

/// The path from the root of the crate. A path without `crate`, `super` or `self` begins in the
/// module itself, or it is a path of another crate.
fn absolute(module: &str, path: &[&str]) -> Vec<String> {
    let mut from: Vec<&str> = module.split("::").collect();
    for word in path {
        match *word {
            "crate" => from.clear(),
            "super" => drop(from.pop()),
            "self" => {}
            word => from.push(word),
        }
    }
    from.into_iter().map(str::to_owned).collect()
}

/// Words, `::`, and each other character that is not white space.
fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

fn starts_path(tokens: &[&str], at: usize) -> bool {
    let is_first = ["crate", "super", "self"].contains(&tokens[at]);
    let continues = at > 0 && tokens[at - 1] == "::";
    is_first && !continues && tokens.get(at + 1) == Some(&"::")
}

/// The paths of `a::b::c`, or of each part of `a::{b::c, d as e}`.
fn imports<'a>(tokens: &[&'a str], at: usize) -> Vec<Import<'a>> {
    let mut found = Vec::new();
    read_tree(tokens, at, &[], &mut found);
    found
}

/// Returns where the tree ends.
fn read_tree<'a>(
    tokens: &[&'a str],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<Import<'a>>,
) -> usize {
    if tokens[at] == "{" {
        at += 1;
        while tokens[at] != "}" {
            at = match tokens[at] {
                "," => at + 1,
                _ => read_tree(tokens, at, before, found),
            };
        }
        return at + 1;
    }
    let mut path = before.to_vec();
    path.push(tokens[at]);
    // `::<` is not a part of the path.
    if tokens.get(at + 1) == Some(&"::") && tokens[at + 2] != "<" {
        return read_tree(tokens, at + 2, &path, found);
    }
    let is_renamed = tokens.get(at + 1) == Some(&"as");
    let (name, end) = match is_renamed {
        true => (tokens[at + 2], at + 3),
        false => (tokens[at], at + 1),
    };
    found.push(Import { path, name });
    end
}

fn modules(code: &[(&str, &str)]) -> Modules {
    let owned = |(module, code): &(&str, &str)| ((*module).to_owned(), (*code).to_owned());
    Modules::new(code.iter().map(owned).collect())
}

#[test]
fn a_cycle_through_a_re_export_is_found() {
    let cycle = modules(&[
        (
            "shop",
            "pub use order::{Line as OrderLine, Order};\npub use price::Price;",
        ),
        (
            "shop::order",
            "use super::price::{self};\npub struct Order;",
        ),
        ("shop::price", ""),
        (
            "shop::price::tax",
            "fn tax(line: crate::shop::OrderLine) -> u8 { line.tax::<u8>() }",
        ),
    ]);
    let wanted = ["shop::order", "shop::price"].map(str::to_owned).to_vec();
    assert_eq!(cycle.cycles(), BTreeSet::from([wanted]));
}

#[test]
fn a_module_may_use_what_contains_it_and_what_it_contains() {
    let nested = modules(&[
        (
            "shop",
            "mod order;\nuse std::fmt;\nuse order::Order;\npub struct Price;",
        ),
        (
            "shop::order",
            "use super::Price;\nuse super::fmt;\npub(in crate::shop) fn one() {}",
        ),
        ("till", "use crate::shop::{order::{Order}, Price};"),
    ]);
    assert_eq!(nested.cycles(), BTreeSet::new());
    let till = BTreeSet::from(["shop".to_owned()]);
    assert_eq!(nested.uses(), BTreeMap::from([("till".to_owned(), till)]));
}
