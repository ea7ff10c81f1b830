//! The tables that a person reads: the machine, its limits, and every figure with its goal.

use crate::machine::Facts;
use crate::results::{LIMIT, Results, Series, number};
use comfy_table::{Cell, CellAlignment, Table, presets};

/// Facts, limits and figures, as text.
pub fn table(results: &Results, facts: &Facts) -> String {
    let mut parts = vec![facts_table(facts)];
    if results.series().iter().any(|series| series.peer == LIMIT) {
        parts.push(limits_table(results));
    }
    if !results.figures().is_empty() {
        parts.push(figures_table(results));
    }
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

fn facts_table(facts: &Facts) -> Table {
    let mut table = new_table();
    for (name, value) in facts {
        table.add_row([name, value]);
    }
    table
}

fn limits_table(results: &Results) -> Table {
    let mut table = new_table();
    table.set_header(["physical limit", "median (min .. max)", ""]);
    for series in results.series().iter().filter(|series| series.peer == LIMIT) {
        table.add_row([series.figure.label.to_owned(), spread(series), series.figure.unit.to_owned()]);
    }
    align_right(&mut table, 1);
    table
}

fn figures_table(results: &Results) -> Table {
    let peers = results.peers();
    let mut table = new_table();
    let mut header = vec!["median (min .. max)".to_owned(), String::new()];
    header.extend(peers.iter().map(ToString::to_string));
    header.push("goal".to_owned());
    table.set_header(header);
    for figure in results.figures() {
        let mut row = vec![Cell::new(figure.label), Cell::new(figure.unit)];
        for peer in &peers {
            row.push(Cell::new(results.find(figure, peer).map_or(String::new(), spread)));
        }
        let goals: Vec<String> = results
            .verdicts(figure)
            .iter()
            .map(|verdict| match verdict.reached {
                Some(true) => format!("{} yes", verdict.goal),
                Some(false) => format!("{} NO", verdict.goal),
                None => verdict.goal.clone(),
            })
            .collect();
        row.push(Cell::new(goals.join("\n")));
        table.add_row(row);
    }
    for column in 0..peers.len() {
        align_right(&mut table, column + 2);
    }
    table
}

fn spread(series: &Series) -> String {
    let median = number(series.median());
    if series.values.len() == 1 {
        return median;
    }
    format!("{median} ({} .. {})", number(series.min()), number(series.max()))
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
