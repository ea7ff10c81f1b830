//! That applications are shown how: each public item of the crates they import appears in an example of its file.
//!
//! Knows which lines of a file declare what applications can name, and which lines `cargo test --doc` compiles and a reader
//! sees. Relies on rustfmt's layout, as the other checks do. Variants and fields count with their type. Whether an
//! example is a good one is for its reviewer; whether it compiles, for the compiler.

use std::collections::BTreeSet;

use super::{Finding, SourceFile};

/// The crates that other people's programs import.
const CRATES: [&str; 2] = ["crates/sdk/src/", "crates/tower/src/"];

/// Something that applications can name.
#[derive(Debug, PartialEq)]
struct Item<'a> {
    line: usize,
    kind: Kind,
    name: &'a str,
    /// The type or the trait it belongs to.
    owner: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Type,
    Function,
    /// A constant, or a type that is another's name.
    Other,
}

/// Each public item is named by a line of an example in its file: more than imported, and not only in a comment.
pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    CRATES.iter().flat_map(|folder| check_crate(files, folder)).collect()
}

fn check_crate(files: &[SourceFile], folder: &str) -> Vec<Finding> {
    let is_of_crate = |file: &&SourceFile| {
        let is_code = file.path.ends_with(".rs") && !file.path.ends_with("/tests.rs");
        file.path.starts_with(folder) && is_code
    };
    let files: Vec<_> =
        files.iter().filter(is_of_crate).map(|file| (file, public_items(&file.text))).collect();
    let items = files.iter().flat_map(|(_, items)| items);
    let types: BTreeSet<_> = items.filter(|item| item.kind == Kind::Type).map(|item| item.name).collect();
    let is_reachable = |item: &&Item<'_>| item.owner.is_none_or(|owner| types.contains(owner));
    let mut findings = Vec::new();
    for (file, items) in &files {
        let code = shown_code(&file.text);
        for item in items.iter().filter(is_reachable).filter(|item| !is_shown(item, &code)) {
            let owner = item.owner.map_or_else(String::new, |owner| format!("{owner}::"));
            let place = format!("{}:{}", file.path, item.line);
            findings.push(Finding::new(place, format!("no example shows {owner}{}", item.name)));
        }
    }
    findings
}

/// What a file declares for everybody, without tests and what is hidden from the documentation.
fn public_items(text: &str) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let (mut owner, mut in_trait, mut is_hidden) = (None, false, false);
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if line == "#[cfg(test)]" {
            break;
        } else if code == "#[doc(hidden)]" {
            is_hidden = true;
        } else if code.is_empty() || code.starts_with("//") || code.starts_with('#') {
            continue;
        }
        if line == "}" {
            (owner, in_trait) = (None, false);
        } else if line.starts_with("impl") {
            owner = implementing_type(line);
        }
        let is_member_of_trait = in_trait && line.len() - code.len() == 4;
        let declaration = code.strip_prefix("pub ").or(is_member_of_trait.then_some(code));
        if let Some((kind, name, keyword)) = declaration.and_then(declared)
            && !is_hidden
        {
            items.push(Item { line: index + 1, kind, name, owner });
            if keyword == "trait" {
                (owner, in_trait) = (Some(name), true);
            }
        }
        is_hidden &= code.starts_with('#');
    }
    items
}

/// What a declaration without its visibility declares: kind, name and keyword.
fn declared(declaration: &str) -> Option<(Kind, &str, &str)> {
    let mut words = declaration.split(' ').skip_while(|word| ["async", "unsafe"].contains(word)).peekable();
    let mut keyword = words.next()?;
    if keyword == "const" && words.peek() == Some(&"fn") {
        keyword = words.next()?;
    }
    let kind = match keyword {
        "fn" => Kind::Function,
        "struct" | "enum" | "trait" => Kind::Type,
        "const" | "static" | "type" => Kind::Other,
        _ => return None,
    };
    let rest = words.next()?;
    let name = rest.split(|c: char| !is_of_name(c)).next()?;
    (!name.is_empty()).then_some((kind, name, keyword))
}

/// The name of the type that `impl … {` is for.
fn implementing_type(line: &str) -> Option<&str> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
    let subject = rest.split_once(" for ").map_or(rest, |(_, subject)| subject).trim_start();
    subject.split(|c: char| !is_of_name(c)).next().filter(|name| !name.is_empty())
}

/// The lines of a file's examples that are compiled and shown, without imports and comments.
fn shown_code(text: &str) -> String {
    let mut code = String::new();
    // Whether the open block, if there is one, is compiled.
    let mut block = None;
    let mut in_import = false;
    for line in text.lines().map(str::trim_start) {
        let Some(line) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else { continue };
        let line = line.trim();
        match (block, line.strip_prefix("```")) {
            (Some(_), Some(_)) => block = None,
            (None, Some(attributes)) => block = Some(is_compiled(attributes)),
            (Some(true), None) if line != "#" && !line.starts_with("# ") => {
                in_import |= line.starts_with("use ");
                if !in_import {
                    let end = if line.starts_with("//") { Some(0) } else { line.find(" //") };
                    code.push_str(&line[..end.unwrap_or(line.len())]);
                    code.push('\n');
                }
                in_import &= !line.ends_with(';');
            }
            _ => {}
        }
    }
    code
}

fn is_compiled(attributes: &str) -> bool {
    attributes.split(',').all(|word| ["", "no_run", "rust", "should_panic"].contains(&word.trim()))
}

fn is_shown(item: &Item<'_>, code: &str) -> bool {
    let is_used = |(start, name): (usize, &str)| {
        let (before, after) = (&code[..start], &code[start + name.len()..]);
        if before.ends_with(is_of_name) || after.starts_with(is_of_name) {
            return false;
        }
        match (item.kind, item.owner) {
            (Kind::Function, Some(owner)) => {
                let is_called = before.ends_with('.') && (after.starts_with('(') || after.starts_with("::<"));
                let is_of_type = before.ends_with(&format!("{owner}::")) || before.ends_with(">::");
                is_called || is_of_type || before.ends_with("fn ")
            }
            _ => true,
        }
    };
    code.match_indices(item.name).any(is_used)
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about a file of the SDK.
    fn found(text: &str) -> Vec<String> {
        let file = SourceFile { path: "crates/sdk/src/a.rs".to_owned(), text: text.to_owned() };
        check(&[file]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn types_functions_and_constants_are_shown() {
        let items = "pub struct A;\npub enum B {}\npub const fn c() {}\npub const D: u8 = 0;\n";
        let example = "/// ```\n/// let a: (A, B) = c::<D>();\n/// ```\n";
        assert_eq!(found(&format!("{example}{items}")), [""; 0]);
        let expected = ["1: no example shows A", "2: no example shows B", "3: no example shows c"];
        let expected = expected.map(|rest| format!("crates/sdk/src/a.rs:{rest}"));
        assert_eq!(found(items)[..3], expected);
    }

    #[test]
    fn a_method_is_called_or_named_with_its_type() {
        let items = "pub struct A;\nimpl<T: From<u8>> A<T> {\n    pub fn new() {}\n    pub async fn of(&self) {}\n}\n";
        let check = |code: &str| found(&format!("/// ```\n/// {code}\n/// ```\n{items}"));
        assert_eq!(check("let a = A::new().of();"), [""; 0]);
        assert_eq!(check("let a: A = B::new(of, \"news of\");").len(), 2);
    }

    #[test]
    fn methods_of_traits_are_public_and_those_of_private_types_are_not() {
        let example = "/// ```\n/// impl A for B {}\n/// ```\n";
        let items = "pub trait A {\n    fn a();\n}\nstruct B;\nimpl B {\n    pub fn b() {}\n}\n";
        assert_eq!(found(&format!("{example}{items}")), ["crates/sdk/src/a.rs:5: no example shows A::a"]);
    }

    #[test]
    fn only_what_is_compiled_and_seen_counts() {
        let check = |block: &str| found(&format!("{block}pub struct A;\n")).is_empty();
        assert!(check("//! ```no_run\n//! A::b();\n//! ```\n"));
        assert!(!check("/// ```text\n/// A\n/// ```\n"));
        assert!(!check("/// ```ignore\n/// A\n/// ```\n"));
        assert!(!check("/// ```\n/// # let a = A;\n/// ```\n"));
        assert!(!check("/// ```\n/// use a::{\n///     A,\n/// };\n/// let b = 1; // A\n/// ```\n"));
        assert!(!check("/// An A.\n"));
    }

    #[test]
    fn tests_and_what_is_hidden_need_no_example() {
        assert_eq!(found("#[doc(hidden)]\n#[derive(Debug)]\npub struct A;\n"), [""; 0]);
        assert_eq!(found("#[doc(hidden)]\npub struct A;\npub struct B;\n").len(), 1);
        assert_eq!(found("pub(crate) struct A;\n#[cfg(test)]\nmod tests {\n    pub fn a() {}\n}\n"), [""; 0]);
    }
}
