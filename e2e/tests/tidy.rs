//! The tree as a reader sees it: what ARCHITECTURE.md says is absent is absent, and nothing has grown out of hand.
//!
//! Only text is looked at; what the compiler and clippy can check is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const SERVICES: [&str; 4] = ["order-svc", "inventory-svc", "payment-svc", "notify-svc"];
const SOURCE_LINES_MAX: usize = 400;
const FORBIDDEN_STEMS: [&str; 7] = ["utils", "common", "helpers", "types", "models", "services", "manager"];
const SHARED_FILES: [&str; 8] = ["main", "lib", "config", "domain", "processor", "store", "http", "app"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the workspace").to_owned()
}

/// All files that git would track, by path from the root.
fn files(extension: &str) -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the tree").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if name != "target" && name != ".git" && name != ".orderlog" && name != "node_modules" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let relative = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.insert(relative, std::fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    found
}

fn offences(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// The file without its test module and comments: what runs.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("_tests.rs") || path.ends_with("_properties.rs")
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = files("rs").into_iter().filter(|(_, text)| !text.starts_with("//!"));
    offences("a file begins with //! and its purpose", silent.map(|(path, _)| path).collect());
}

#[test]
fn no_source_file_outgrows_a_reader() {
    let long = files("rs").into_iter().filter(|(path, _)| !is_test(path) && path.contains("/src/"));
    let long = long.map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > SOURCE_LINES_MAX);
    offences("split by responsibility above 400 lines", long.map(|(path, lines)| format!("{path}: {lines}")).collect());
}

#[test]
fn no_file_is_named_for_nothing() {
    let named = files("rs").into_keys().filter(|path| {
        let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // In the tools a file about the four services is named for them.
        FORBIDDEN_STEMS.contains(&stem.as_str()) && !(stem == "services" && path.starts_with("tools/"))
    });
    offences("name a file for what it answers", named.collect());
}

#[test]
fn services_have_the_same_files() {
    let files = files("rs");
    let missing = SERVICES.iter().flat_map(|service| SHARED_FILES.map(|file| format!("{service}/src/{file}.rs")));
    offences("missing", missing.filter(|path| !files.contains_key(path)).collect());
}

#[test]
fn rdkafka_is_named_in_the_engine_only() {
    let named = files("rs").into_iter().filter(|(path, text)| {
        !is_test(path)
            && !path.starts_with("engine/")
            && !path.starts_with("tools/")
            && !path.starts_with("e2e/")
            && code(text).contains("rdkafka")
    });
    offences("only engine names rdkafka", named.map(|(path, _)| path).collect());
}

#[test]
fn actix_is_named_in_edge_and_http_only() {
    let named = files("rs").into_iter().filter(|(path, text)| {
        let allowed = path.starts_with("edge/") || path.starts_with("tools/") || path.starts_with("e2e/");
        let http = path.contains("/src/http") || is_test(path);
        !allowed && !http && code(text).contains("actix_web")
    });
    offences("only edge and http.rs name actix-web", named.map(|(path, _)| path).collect());
}

#[test]
fn sql_is_where_it_belongs() {
    let words = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "];
    let named = files("rs").into_iter().filter(|(path, text)| {
        let service = SERVICES.iter().any(|service| path.starts_with(service));
        let stored = path.contains("/src/store") || is_test(path);
        service && !stored && words.iter().any(|word| code(text).contains(&format!("\"{word}")))
    });
    offences("a service's SQL is in store.rs", named.map(|(path, _)| path).collect());
}

#[test]
fn the_core_is_pure() {
    let foreign = ["sqlx", "actix", "tokio", "SystemTime", "Instant", "rand::", "tracing", "async fn", "f64"];
    let mut found = Vec::new();
    for service in SERVICES {
        for (path, text) in files("rs").into_iter().filter(|(path, _)| *path == format!("{service}/src/domain.rs")) {
            let code = code(&text);
            found.extend(foreign.iter().filter(|word| code.contains(*word)).map(|word| format!("{path}: {word}")));
        }
    }
    for (path, text) in files("rs").into_iter().filter(|(path, _)| path.starts_with("events/src/")) {
        let code = code(&text);
        let io = ["std::fs", "std::net", "SystemTime", "Instant", "rand::", "tokio", "sqlx", "reqwest"];
        found.extend(io.iter().filter(|word| code.contains(*word)).map(|word| format!("{path}: {word}")));
    }
    offences("no clock, randomness or IO in domain.rs and events", found);
}

#[test]
fn engine_and_edge_know_no_business_word() {
    let words =
        ["OrderPlaced", "StockReserved", "PaymentCaptured", "order_svc", "inventory_svc", "payment_svc", "notify_svc"];
    let named = files("rs").into_iter().filter(|(path, text)| {
        let generic = path.starts_with("engine/src/") || path.starts_with("edge/src/") || path.starts_with("host/src/");
        generic && words.iter().any(|word| code(text).contains(word))
    });
    offences("a business word in a generic crate", named.map(|(path, _)| path).collect());
}

#[test]
fn the_checker_judges_by_rules_of_its_own() {
    let words = ["engine::", "edge::", "order_svc", "inventory_svc", "payment_svc", "notify_svc", "sqlx", "reqwest"];
    let named = files("rs").into_iter().filter(|(path, text)| {
        let judges = path == "e2e/src/checker.rs" || path.starts_with("e2e/src/checker/");
        judges && words.iter().any(|word| code(text).contains(word))
    });
    offences("the checker shares only `events` with the services", named.map(|(path, _)| path).collect());
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "#[allow(", "#[ignore"];
    let mut found = Vec::new();
    for (path, text) in files("rs").into_iter().filter(|(path, _)| path != "e2e/tests/tidy.rs") {
        found.extend(marks.iter().filter(|mark| text.contains(*mark)).map(|mark| format!("{path}: {mark}")));
    }
    offences("left unfinished or switched off", found);
}

#[test]
fn every_variable_is_documented() {
    let example = std::fs::read_to_string(root().join(".env.example")).expect(".env.example");
    let documented: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim_end_matches("_FILE"))
        .collect();
    let mut read = BTreeSet::new();
    for (path, text) in files("rs") {
        let service = SERVICES.iter().any(|service| path == format!("{service}/src/config.rs"));
        if !service && path != "host/src/settings.rs" {
            continue;
        }
        let calls = ["text(", "text_or(", "secret(", "parsed(", "parsed_or(", "parsed_by(", "parsed_by_or("];
        for call in calls.into_iter().chain(["duration_or(", "durations_or("]) {
            let pieces = code(&text).split(call).skip(1).map(str::to_owned).collect::<Vec<_>>();
            let name = |piece: String| piece.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
            read.extend(pieces.into_iter().filter_map(name));
        }
        for call in ["::<i32>(", "::<u16>("] {
            let pieces = code(&text).split(call).skip(1).map(str::to_owned).collect::<Vec<_>>();
            let name = |piece: String| piece.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
            read.extend(pieces.into_iter().filter_map(name));
        }
    }
    let read: BTreeSet<String> =
        read.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect();
    assert!(
        read.contains("DATABASE_URL") && read.contains("PAY_WITHIN"),
        "the reader of this test sees them: {read:?}"
    );
    let unknown = read.iter().filter(|name| !documented.contains(name.as_str())).cloned();
    offences("not in .env.example", unknown.collect());
    let unread = documented.iter().filter(|name| !read.contains(**name)).map(|name| (*name).to_owned());
    offences("in .env.example, but nothing reads it", unread.collect());
}
