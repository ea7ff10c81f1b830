//! How results are printed: tables for people, JSON for machines.
//!
//! Invariant: only results go to standard output; a closed pipe (`| head`) ends the program quietly.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use comfy_table::{Table, presets};
use serde::Serialize;

/// A table with these column heads and no lines around it.
pub fn table<const N: usize>(heads: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(heads);
    // The first column stands at the margin.
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    table
}

/// Prints a table.
pub fn print_table(table: &Table) -> anyhow::Result<()> {
    print(&table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>())
}

/// Prints a value as JSON for reading.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints text as it is.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("write to standard output"),
    }
}

/// Text of strangers as it may be shown: what would move the cursor or forge a line is escaped.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_moves_nothing() {
        assert_eq!(visible("caf\u{e9}\u{1b}[2J\nstatus\t\u{9b}"), "caf\u{e9}\\u{1b}[2J\\nstatus\\t\\u{9b}");
    }

    #[test]
    fn groups_digits() {
        let check = |number, expect: &str| assert_eq!(thousands(number), expect);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(1_234_567, "1,234,567");
    }
}
