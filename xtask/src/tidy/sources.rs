//! What every Rust source must look like: it opens by saying what it is, and it stays short.
//!
//! Counts lines without tests and the places where clippy's bound on the length of functions is waived; the
//! bounds themselves, with their exceptions, are the ratchet's. Generated files are exempt from sizes.

use std::collections::BTreeMap;

use super::{Finding, SourceFile};

/// Files that `cargo xtask codegen` writes; nobody reads them top-down.
const GENERATED: &str = "crates/wire/src/messages/";

/// The sizes the ratchet bounds, by path.
#[derive(Default)]
pub struct Sizes {
    pub lines: BTreeMap<String, usize>,
    pub long_functions: BTreeMap<String, usize>,
}

pub fn sizes(files: &[SourceFile]) -> Sizes {
    let mut sizes = Sizes::default();
    for file in files.iter().filter(|file| is_rust(file) && !file.path.starts_with(GENERATED)) {
        if !is_test(&file.path) {
            sizes.lines.insert(file.path.clone(), lines_without_tests(&file.text));
        }
        let waived = file.text.lines().filter(|line| waives_function_length(line)).count();
        sizes.long_functions.insert(file.path.clone(), waived);
    }
    sizes
}

/// Every module opens with `//!`: what it owns, its invariants, what it does not do. A `tests.rs` beside its
/// module has said it by its name.
pub fn check_module_docs(files: &[SourceFile]) -> Vec<Finding> {
    let undocumented = |file: &&SourceFile| {
        is_rust(file) && !file.path.ends_with("/tests.rs") && !opens_with_docs(&file.text)
    };
    let finding =
        |file: &SourceFile| Finding::new(&file.path, "does not open with `//!` saying what it owns");
    files.iter().filter(undocumented).map(finding).collect()
}

fn opens_with_docs(text: &str) -> bool {
    // Generators and licences may put plain comments and attributes before the documentation.
    let skipped = |line: &&str| {
        line.is_empty() || (line.starts_with("//") && !line.starts_with("//!")) || line.starts_with("#![")
    };
    text.lines().map(str::trim).find(|line| !skipped(line)).is_some_and(|line| line.starts_with("//!"))
}

fn waives_function_length(line: &str) -> bool {
    let line = line.trim_start();
    (line.starts_with("#[") || line.starts_with("#![")) && line.contains("clippy::too_many_lines")
}

fn is_rust(file: &SourceFile) -> bool {
    file.path.ends_with(".rs")
}

/// Files that hold tests only: `tests.rs` beside its module, and the `tests/` folder of a crate.
fn is_test(path: &str) -> bool {
    let in_tests_folder = path
        .rsplit_once('/')
        .is_some_and(|(folder, _)| folder.split('/').skip(1).any(|part| part == "tests"));
    path.ends_with("/tests.rs") || in_tests_folder
}

/// The number of lines, without `#[cfg(test)] mod … { … }` at the top level.
/// Relies on rustfmt's layout: such a module ends at the first line that is a closing bracket alone.
fn lines_without_tests(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let opens_tests = line == "#[cfg(test)]"
            && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if opens_tests {
            for line in lines.by_ref() {
                if line == "}" {
                    break;
                }
            }
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_module_opens_with_its_documentation() {
        let check = |text| check_module_docs(&[file("crates/log/src/a.rs", text)]).is_empty();
        assert!(check("//! Owns a.\n\nuse b;\n"));
        assert!(check("// @generated\n#![allow(x)]\n\n//! Owns a.\n"));
        assert!(!check("use b;\n//! Too late.\n"));
        assert!(!check(""));
    }

    #[test]
    fn tests_and_generated_files_have_no_length() {
        let sizes = sizes(&[
            file("crates/log/src/a.rs", "1\n2\n"),
            file("crates/log/src/a/tests.rs", "1\n"),
            file("crates/log/tests/crash.rs", "1\n"),
            file("tests/src/lib.rs", "1\n2\n3\n"),
            file("crates/wire/src/messages/fetch.rs", "1\n"),
            file("README.md", "1\n"),
        ]);
        let counted: Vec<_> = sizes.lines.iter().map(|(path, lines)| (path.as_str(), *lines)).collect();
        assert_eq!(counted, [("crates/log/src/a.rs", 2), ("tests/src/lib.rs", 3)]);
    }

    #[test]
    fn waived_function_lengths_are_counted() {
        let text =
            "#[expect(clippy::too_many_lines, reason = \"a table\")]\nfn a() {}\n// clippy::too_many_lines\n";
        assert_eq!(sizes(&[file("crates/log/src/a.rs", text)]).long_functions["crates/log/src/a.rs"], 1);
    }

    #[test]
    fn test_modules_do_not_count() {
        assert_eq!(lines_without_tests("//! A.\nfn a() {\n}\n"), 3);
        assert_eq!(
            lines_without_tests("//! A.\n#[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\nfn b() {}\n"),
            2
        );
        assert_eq!(lines_without_tests("#[cfg(test)]\nmod tests;\n"), 2);
    }
}
