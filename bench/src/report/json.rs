//! Everything that was measured, for programs: each value of each round.

use crate::machine::Facts;
use crate::results::Results;
use anyhow::Result;
use serde_json::{Map, Value, json};

/// The results as JSON text.
pub fn json(results: &Results, facts: &Facts) -> Result<String> {
    let facts: Map<String, Value> = facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let series: Vec<Value> = results
        .series()
        .iter()
        .map(|series| {
            json!({
                "figure": series.figure.id,
                "label": series.figure.label,
                "unit": series.figure.unit,
                "peer": series.peer,
                "median": series.median(),
                "min": series.min(),
                "max": series.max(),
                "rounds": series.values,
            })
        })
        .collect();
    let goals: Vec<Value> = results
        .figures()
        .iter()
        .flat_map(|&figure| results.verdicts(figure).into_iter().map(move |verdict| (figure, verdict)))
        .map(|(figure, verdict)| json!({"figure": figure.id, "goal": verdict.goal, "reached": verdict.reached}))
        .collect();
    Ok(serde_json::to_string_pretty(&json!({"machine": facts, "series": series, "goals": goals}))? + "\n")
}
