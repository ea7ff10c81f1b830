//! `tidings log repair`: shows what would be done, and does it when told to.

use serde_json::{Value, json};
use tidings_log::offline::{Access, Piece, Remedy, RepairPlan, RepairStep};

use super::{check_all, chosen, open};
use crate::args::LogRepairArgs;
use crate::output::{print, print_json, thousands};

/// Runs the command.
pub fn run(args: &LogRepairArgs) -> anyhow::Result<()> {
    // Planning takes the lock as well: what is shown must still be true a moment later.
    let mut dir = open(&args.data_dir, Access::Locked)?;
    let partitions = chosen(&dir, std::slice::from_ref(&args.partition))?;
    let checks = check_all(&dir, &partitions)?;
    let remedy = args.truncate_at.map_or(Remedy::DropDamaged, Remedy::TruncateAt);
    let plan = dir.plan_repair(&checks[0], remedy)?;
    if args.yes {
        dir.repair(&plan)?;
        if let Some(damage) = check_all(&dir, &partitions)?.iter().flat_map(|check| &check.damages).next() {
            anyhow::bail!(
                "{}: still damaged at byte {}: {}",
                damage.file.display(),
                damage.position,
                damage.what
            );
        }
    }
    if args.json {
        let steps: Vec<Value> = plan.steps.iter().map(step_json).collect();
        return print_json(
            &json!({ "topic_partition": plan.topic_partition.to_string(), "done": args.yes, "steps": steps }),
        );
    }
    print(&text(&plan, args.yes))
}

fn text(plan: &RepairPlan, done: bool) -> String {
    let mut text = format!("{}{}:\n", if done { "repaired " } else { "would repair " }, plan.topic_partition);
    plan.steps.iter().for_each(|step| text.push_str(&step_text(step)));
    if !done {
        text.push_str("nothing was changed: add --yes to do it\n");
    }
    text
}

fn step_text(step: &RepairStep) -> String {
    match step {
        RepairStep::MoveRecoveryPoint { to } => format!("  recovery point to offset {to}\n"),
        RepairStep::RaiseLogStart { to } => format!("  log start to offset {to}\n"),
        RepairStep::SetAside { file, bytes, kept } => {
            format!("  {} ({} bytes) out of the log, kept as {}\n", file.display(), thousands(*bytes), kept.display())
        }
        RepairStep::Cut { file, position, bytes, kept } => format!(
            "  {}: {} bytes from byte {position} on out of the log, kept as {}\n",
            file.display(),
            thousands(*bytes),
            kept.display()
        ),
        RepairStep::Bridge { file, pieces } => pieces
            .iter()
            .map(|Piece { position, bytes, first_offset, next_offset, kept }| {
                let kept = kept.as_ref().map(|kept| format!(", kept as {}", kept.display())).unwrap_or_default();
                format!(
                    "  {}: {} bytes at byte {position} out of the log{kept}; offsets {first_offset} to {} stay empty\n",
                    file.display(),
                    thousands(*bytes),
                    next_offset - 1
                )
            })
            .collect(),
    }
}

fn step_json(step: &RepairStep) -> Value {
    match step {
        RepairStep::MoveRecoveryPoint { to } => json!({ "step": "move_recovery_point", "to": to }),
        RepairStep::RaiseLogStart { to } => json!({ "step": "raise_log_start", "to": to }),
        RepairStep::SetAside { file, bytes, kept } => {
            json!({ "step": "set_aside", "file": file, "bytes": bytes, "kept": kept })
        }
        RepairStep::Cut { file, position, bytes, kept } => {
            json!({ "step": "cut", "file": file, "position": position, "bytes": bytes, "kept": kept })
        }
        RepairStep::Bridge { file, pieces } => {
            let piece = |piece: &Piece| {
                json!({
                    "position": piece.position, "bytes": piece.bytes, "first_offset": piece.first_offset,
                    "next_offset": piece.next_offset, "kept": piece.kept,
                })
            };
            json!({ "step": "bridge", "file": file, "pieces": pieces.iter().map(piece).collect::<Vec<_>>() })
        }
    }
}
