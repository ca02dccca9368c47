//! Rules for the source that no lint checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::Modules;

#[path = "tidy/imports.rs"]
mod imports;

/// The top modules in order: each may use those before it.
const ORDER: [&str; 18] = [
    "domain",
    "signature",
    "clock",
    "files",
    "lock",
    "identity_center",
    "store",
    "code",
    "config",
    "telemetry",
    "service",
    "worker",
    "http",
    "mattermost",
    "app",
    "serve",
    "lambda",
    "cli",
];

#[test]
fn each_top_module_uses_only_those_before_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = top_module_of(&file);
        let Some(height) = ORDER.iter().position(|known| *known == module) else {
            assert!(
                matches!(module.as_str(), "main" | "lib"),
                "{module} is not in ORDER"
            );
            continue;
        };
        for used in used_top_modules(&fs::read_to_string(&file).unwrap()) {
            let below = ORDER.iter().position(|known| *known == used);
            if below.is_none_or(|below| below > height) {
                wrong.push(format!("{} uses {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `ORDER`, src/lib.rs and ARCHITECTURE.md have the modules in the same order.
#[test]
fn lib_rs_and_architecture_md_list_the_modules_in_this_order() {
    let library = fs::read_to_string("src/lib.rs").unwrap();
    let declared: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_suffix(';')?.split_once("mod "))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(declared, ORDER, "src/lib.rs");
    let document = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let table = document
        .lines()
        .skip_while(|line| *line != "| module | contains |")
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let documented: Vec<&str> = table
        .map(|row| row.split('`').nth(1).unwrap())
        .map(|name| name.trim_end_matches('/').trim_end_matches(".rs"))
        .collect();
    assert_eq!(documented, ORDER, "ARCHITECTURE.md");
}

/// The domain uses no clock, no store, no AWS and no async code.
#[test]
fn the_domain_imports_no_io_and_no_clock() {
    for file in sources().filter(|file| top_module_of(file) == "domain") {
        let text = fs::read_to_string(&file).unwrap();
        for word in [
            "async ", "tokio", "rusqlite", "reqwest", "axum", "std::fs", "std::net", "now_utc",
        ] {
            assert!(
                !code_lines(&text).any(|l| l.contains(word)),
                "{word} in {}",
                file.display()
            );
        }
    }
}

/// A search for work or a list must not scan a table, because its cost would grow with the store.
#[test]
fn no_store_scans_a_table() {
    for file in sources().filter(|file| top_module_of(file) == "store") {
        let text = fs::read_to_string(&file).unwrap();
        let scans = code_lines(&text).any(|line| line.contains(".scan()"));
        assert!(!scans, "{} scans", file.display());
    }
}

#[test]
fn no_source_file_has_more_than_600_lines() {
    for file in files(Path::new("src")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

const MOST_LINES: usize = 60;

#[test]
fn no_function_has_more_than_60_lines() {
    let mut counted = 0;
    let mut long = BTreeSet::new();
    for file in all_code() {
        let text = fs::read_to_string(&file).unwrap();
        for (name, lines) in function_lengths(&text) {
            counted += 1;
            if lines > MOST_LINES {
                long.insert((file.display().to_string(), name));
            }
        }
    }
    assert!(counted > 3_000, "the test found only {counted} functions");
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:#?}");
}

/// The name and the number of lines of each function. rustfmt puts the closing brace of a function
/// below the first word of the function.
fn function_lengths(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(name) = function_name(code) else {
            continue;
        };
        let is_over = |line: &&str| line.ends_with(['{', ';', '}']);
        let signature = lines[first..].iter().position(is_over).unwrap();
        let mut length = signature + 1;
        if lines[first + signature].ends_with('{') {
            let indent = &line[..line.len() - code.len()];
            let is_end = |line: &&str| line.strip_prefix(indent) == Some("}");
            length += lines[first + length..].iter().position(is_end).unwrap() + 1;
        }
        found.push((name, length));
    }
    found
}

fn function_name(code: &str) -> Option<String> {
    let (before, after) = code.split_once("fn ")?;
    let is_modifier = |word: &str| {
        word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\""].contains(&word)
    };
    let name: String = after
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (before.split_whitespace().all(is_modifier) && !name.is_empty()).then_some(name)
}

#[test]
fn functions_are_measured_from_fn_to_the_closing_brace() {
    let text = "\
fn one() -> u8 { 1 }

pub(super) async fn six<T>(
    first: T,
) -> T
where
    T: Clone,
{
    if true {
    }
    first
}

trait Named {
    fn declared(&self) -> &str;
    const fn inside(self) {
        // fn comment
    }
}

fn type_of(function: fn(u8) -> u8) {
}

mod tests {
    fn test() {
    }
}
";
    let found = function_lengths(text);
    let found: Vec<(&str, usize)> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    let wanted = [
        ("one", 1),
        ("six", 10),
        ("declared", 1),
        ("inside", 3),
        ("type_of", 2),
        ("test", 2),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn every_source_file_has_a_module_doc() {
    for file in sources().filter(|file| !file.ends_with("main.rs")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} has no module doc",
            file.display()
        );
    }
}

/// CONTRIBUTING.md: a comment names the thing that it describes.
#[test]
fn no_line_of_a_comment_begins_with_what_or_who() {
    let mut wrong = Vec::new();
    for file in all_code().chain([PathBuf::from("clippy.toml"), PathBuf::from("deny.toml")]) {
        let text = fs::read_to_string(&file).unwrap();
        let found = text.lines().filter(|line| is_noun_clause(line));
        wrong.extend(found.map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether this line of a comment begins with "What" or "Who" and is no question.
fn is_noun_clause(line: &str) -> bool {
    let line = line.trim();
    let Some(text) = line.strip_prefix("//").or(line.strip_prefix("# ")) else {
        return false;
    };
    let text = text.trim_start_matches(['/', '!']).trim_start();
    let begins = ["What ", "Who "].iter().any(|word| text.starts_with(word));
    begins && !text.ends_with('?')
}

#[test]
fn a_question_in_a_comment_may_begin_with_what() {
    for (line, wanted) in [
        ("    /// What waits now.", true),
        ("//! Who removes the access.", true),
        ("# What `make audit` accepts.", true),
        ("// What if the answer is lost?", false),
        ("/// Whose request it is.", false),
        ("let text = \"What waits\";", false),
    ] {
        assert_eq!(is_noun_clause(line), wanted, "{line}");
    }
}

#[test]
fn no_result_is_discarded() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        for line in code_lines(&text) {
            let line = line.trim_start();
            assert!(!line.starts_with("let _ ="), "{}: {line}", file.display());
            assert!(!line.starts_with("_ = "), "{}: {line}", file.display());
        }
    }
}

/// src/mattermost uses only the clock of the service, so that a test can control its time.
#[test]
fn mattermost_takes_its_time_from_the_service() {
    for file in sources().filter(|file| top_module_of(file) == "mattermost") {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["SystemClock", "tokio::time", "Instant"] {
            assert!(
                !code_lines(&text).any(|line| line.contains(word)),
                "{word} in {}",
                file.display()
            );
        }
    }
}

/// The folders of `src/mattermost` in order: each uses only those before it.
const CHAT_ORDER: [&str; 6] = ["client", "trust", "cards", "commands", "inbound", "setup"];

#[test]
fn each_folder_of_mattermost_uses_only_those_before_it() {
    let height_of = |module: &str| {
        let folder = module.strip_prefix("mattermost::")?;
        if folder.contains("::") {
            return None;
        }
        let height = CHAT_ORDER.iter().position(|known| *known == folder);
        Some(height.unwrap_or_else(|| panic!("{folder} is not in CHAT_ORDER")))
    };
    let mut counted = 0;
    for (module, used) in modules().uses() {
        let Some(height) = height_of(&module) else {
            continue;
        };
        for used in used {
            counted += 1;
            assert!(height_of(&used).unwrap() < height, "{module} uses {used}");
        }
    }
    assert!(counted > 5, "the test found only {counted} uses");
}

/// A search for a type finds one definition.
#[test]
fn each_public_type_has_a_unique_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        for line in code_lines(&text).map(str::trim_start) {
            let Some(name) = public_type(line) else {
                continue;
            };
            let place = file.display().to_string();
            places.entry(name.to_owned()).or_default().push(place);
        }
    }
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}

fn public_type(line: &str) -> Option<&str> {
    let public = ["pub ", "pub(crate) ", "pub(super) "];
    let rest = public.iter().find_map(|word| line.strip_prefix(word))?;
    let kinds = ["struct ", "enum ", "trait ", "type "];
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    let name = rest.split(|c: char| !c.is_alphanumeric()).next()?;
    // The `$name` of a macro is not a name.
    (!name.is_empty()).then_some(name)
}

/// The compiler must report every decision that a new state, outcome or event needs. The lint
/// `wildcard_enum_match_arm` does not see the arms of a tuple.
#[test]
fn no_match_has_a_wildcard_arm() {
    let modules = ["domain", "service", "worker"];
    let enums = [
        "State::",
        "Command::",
        "EventKind::",
        "Doubt::",
        "Lane::",
        "WorkFailure::",
    ];
    for file in sources().filter(|file| modules.contains(&top_module_of(file).as_str())) {
        let text = fs::read_to_string(&file).unwrap();
        for line in code_lines(&text).map(str::trim_start) {
            let starts = ["_ =>", "_ if ", "(_,", "_,"];
            let is_wildcard = starts.iter().any(|start| line.starts_with(start));
            let is_arm = line.starts_with('(') && line.contains("_) =>");
            let is_wildcard = is_wildcard || (is_arm && enums.iter().any(|one| line.contains(one)));
            assert!(!is_wildcard, "{}: {line}", file.display());
        }
    }
}

/// Only the service and the workers use the store; every other module calls the service.
#[test]
fn only_service_and_workers_use_the_store() {
    let modules = ["service", "worker", "store"];
    for file in sources().filter(|file| !modules.contains(&top_module_of(file).as_str())) {
        let text = fs::read_to_string(&file).unwrap();
        for line in code_lines(&text) {
            assert!(!line.contains(".store()"), "{}: {line}", file.display());
            // `app` opens the configured store and gives it to the service.
            let is_app = file.ends_with("src/app.rs");
            let uses = !is_app && line.contains("dyn Store");
            assert!(!uses, "{}: {line}", file.display());
        }
    }
}

/// The modules with the same parent do not import each other in a cycle. A name that a module
/// re-exports belongs to the module that defines it.
#[test]
fn no_modules_import_each_other_in_a_cycle() {
    let cycles = modules().cycles();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

fn modules() -> Modules {
    let code = sources().map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = code_lines(&text).collect();
        (module_of(&file), code.join("\n"))
    });
    Modules::new(code.collect())
}

/// `src/http/signed.rs` is `http::signed`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").unwrap().with_extension("");
    let parts = inside
        .components()
        .map(|part| part.as_os_str().to_str().unwrap());
    parts.collect::<Vec<_>>().join("::")
}

/// Faults of parts that jit does not have.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "M1",
        "the verifier is a part of the plugin; the fixtures are its test data",
    ),
    ("E14", "jit has no groups"),
    ("E16", "jit stores no state in the chat"),
    ("T8", "jit has no identity pool: every call has a signature"),
    ("T9", "jit gives no chat token to callers"),
    (
        "T10",
        "jit builds no query from text: every statement has parameters",
    ),
    (
        "T11",
        "jit stores a state and its work in one record, without a stream",
    ),
    ("T13", "jit has its own audit, not CloudTrail Lake"),
    ("T14", "jit makes no IAM roles"),
];

/// The numbers in the tables of docs/known-faults.md: a letter, and digits if the fault has some.
fn numbers_of_known_faults() -> BTreeSet<String> {
    let text = fs::read_to_string("docs/known-faults.md").unwrap();
    let first_cells = text.lines().filter_map(|line| {
        let (number, _) = line.strip_prefix("| ")?.split_once(" |")?;
        Some(number.to_owned())
    });
    // The faults of the audit share one letter; other single letters are those of the legend.
    let is_number = |cell: &String| {
        let digits = cell.trim_start_matches(|c: char| c.is_ascii_uppercase());
        let is_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        cell == "C" || (is_digits && cell.len() == digits.len() + 1)
    };
    let mut numbers = BTreeSet::new();
    for number in first_cells.filter(is_number) {
        let is_new = numbers.insert(number.clone());
        assert!(is_new || number == "C", "{number} has two rows");
    }
    numbers
}

/// Each known fault has a test that names its number, or a reason without a test.
#[test]
fn every_known_fault_has_its_test() {
    let mut where_: BTreeMap<String, u32> = BTreeMap::new();
    for file in files(Path::new("src")).chain(files(Path::new("tests"))) {
        if file.ends_with("tidy.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for line in text
            .lines()
            .filter(|line| line.trim_start().starts_with("//"))
        {
            for word in line.split(|c: char| !c.is_ascii_alphanumeric()) {
                *where_.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    let elsewhere: BTreeMap<&str, &str> = ELSEWHERE.iter().copied().collect();
    let known = |letter: char, most: u32| (1..=most).map(move |n| format!("{letter}{n}"));
    let mut known: BTreeSet<String> = known('G', 20)
        .chain(known('M', 4))
        .chain(known('E', 16))
        .chain(known('T', 14))
        .collect();
    let in_docs = numbers_of_known_faults();
    assert!(in_docs.len() > 60, "{in_docs:?}");
    known.extend(in_docs);
    for number in known {
        let tested = where_.contains_key(&number);
        let excused = elsewhere.contains_key(number.as_str());
        assert!(
            tested || excused,
            "{number} has no test and no entry in ELSEWHERE"
        );
        assert!(
            !(tested && excused),
            "{number} has a test and an entry in ELSEWHERE"
        );
    }
}

/// `make bite` finds each place of a fault by its text.
#[test]
fn the_text_of_each_fault_to_plant_occurs_once_in_its_file() {
    let text = fs::read_to_string("tests/bite/faults.toml").unwrap();
    let faults: toml::Table = text.parse().unwrap();
    let faults = faults["fault"].as_array().unwrap();
    let mut wrong = Vec::new();
    // A fault that plants several others has no place of its own.
    for fault in faults.iter().filter(|fault| fault.get("with").is_none()) {
        let id = fault["id"].as_str().unwrap();
        let file = fault["file"].as_str().unwrap();
        let find = fault["find"].as_str().unwrap().trim_matches('\n');
        let source = fs::read_to_string(file).unwrap_or_else(|why| panic!("{id}: {file}: {why}"));
        let count = source.matches(find).count();
        if count != 1 {
            wrong.push(format!("{id}: its `find` occurs {count} times in {file}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `make bite` runs the test of each fault by its name.
#[test]
fn each_fault_to_plant_names_a_test_that_exists() {
    let text = fs::read_to_string("tests/bite/faults.toml").unwrap();
    let faults: toml::Table = text.parse().unwrap();
    let sources: Vec<(PathBuf, String)> = files(Path::new("src"))
        .chain(files(Path::new("tests")))
        .map(|file| (file.clone(), fs::read_to_string(&file).unwrap()))
        .collect();
    let mut wrong = Vec::new();
    for fault in faults["fault"].as_array().unwrap() {
        let found_by = fault["found_by"].as_str().unwrap();
        let Some((_, test)) = found_by.split_once(": ") else {
            assert_eq!(found_by, "simulation");
            continue;
        };
        // A part of the name of a test, or a module of tests.
        let last = test.rsplit("::").next().unwrap();
        let exists = sources.iter().any(|(file, source)| {
            let is_module = file.file_stem().is_some_and(|stem| stem == last);
            let mut tests = source.lines().filter(|line| line.contains("fn "));
            is_module || tests.any(|line| line.contains(last))
        });
        if !exists {
            wrong.push(format!("{}: there is no test {test}", fault["id"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn used_top_modules(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for line in code_lines(text) {
        for after in line.split("crate::").skip(1) {
            if after.starts_with('{') {
                panic!("import one module a line, so that this test can read it: {line}");
            }
            let module: String = after
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            modules.push(module);
        }
    }
    modules
}

/// Without comments, and without the tests at the end of a file.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| *line != "mod tests {")
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn top_module_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn sources() -> impl Iterator<Item = PathBuf> {
    // Files with test code alone.
    let tests = [
        "src/domain/decide/fixtures.rs",
        "src/domain/decide/table.rs",
        "src/domain/decide/walks.rs",
        "src/config/tests.rs",
        "src/config/tests/secrets.rs",
        "src/store/sqlite/plans.rs",
    ];
    files(Path::new("src")).filter(move |file| !tests.iter().any(|test| file == Path::new(test)))
}

fn all_code() -> impl Iterator<Item = PathBuf> {
    ["src", "tests", "benches"]
        .into_iter()
        .flat_map(|folder| files(Path::new(folder)))
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter()
}
