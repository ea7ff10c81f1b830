//! Results for people and programs: a table, a JSON file and a chart.

mod chart;
mod json;
mod table;

use crate::machine::Facts;
use crate::results::Results;
use anyhow::{Context, Result};
use std::path::Path;

pub use table::table;

/// Writes `results.json` and `chart.svg` into `folder` and says so.
pub fn write(results: &Results, facts: &Facts, folder: &Path) -> Result<()> {
    let files = [("results.json", json::json(results, facts)?), ("chart.svg", chart::chart(results, facts))];
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
