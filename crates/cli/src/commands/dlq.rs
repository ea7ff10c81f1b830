//! `tidings dlq`: the failure inbox of a topic, on any cluster.

use anyhow::ensure;
use tidings::failure::{FailureInbox, Letter, Line, Pace, Page, Queue, Selection, StatusFilter, Summary};
use tidings::{Producer, ProducerOptions};

use super::cluster::reach;
use crate::args::{ClusterArgs, DlqCommand, SelectionArgs};
use crate::output::{print, print_json, print_table, table, visible};

/// Characters of an error shown in a list.
const ERROR_CHARS: usize = 80;

/// Runs the command.
pub fn run(command: DlqCommand) -> anyhow::Result<()> {
    match command {
        DlqCommand::List { cluster, topic, limit, cursor, all } => {
            let filter = if all { StatusFilter::Any } else { StatusFilter::Parked };
            let page = inbox(&cluster, &topic)?.list(filter, cursor.as_deref(), limit as usize)?;
            print_page(&page, cluster.json)
        }
        DlqCommand::Show { cluster, topic, id } => {
            let id = id.parse()?;
            let letter = inbox(&cluster, &topic)?.get(id)?;
            if cluster.json { print_json(&letter) } else { print_letter(&letter) }
        }
        DlqCommand::Queues { cluster, topic, limit } => {
            let queues = inbox(&cluster, &topic)?.queues(limit as usize)?;
            if cluster.json { print_json(&queues) } else { print_queues(&queues) }
        }
        DlqCommand::Redrive { selection: args, max_per_second } => {
            let selection = selection(&args)?;
            let inbox = inbox(&args.cluster, &args.topic)?;
            let summary = match max_per_second {
                Some(max_per_second) => {
                    inbox.redrive_slowly(&selection, &by(), Pace::per_second(max_per_second))?
                }
                None => inbox.redrive(&selection, &by(), args.dry_run)?,
            };
            finish("redriven", &selection, &summary, args.cluster.json)
        }
        DlqCommand::Discard(args) => {
            let selection = selection(&args)?;
            let summary = inbox(&args.cluster, &args.topic)?.discard(&selection, &by(), args.dry_run)?;
            finish("discarded", &selection, &summary, args.cluster.json)
        }
    }
}

fn inbox(args: &ClusterArgs, topic: &str) -> anyhow::Result<FailureInbox> {
    let cluster = reach(args)?;
    let producer = Producer::new(&cluster, ProducerOptions::default())?;
    Ok(FailureInbox::new(&cluster, producer, topic))
}

fn selection(args: &SelectionArgs) -> anyhow::Result<Selection> {
    if args.all {
        return Ok(Selection::All);
    }
    let ids: Result<Vec<_>, _> = args.ids.iter().map(|id| id.parse()).collect();
    Ok(Selection::Ids(ids?))
}

/// Who decides: the user of this shell.
fn by() -> String {
    std::env::var("USER").unwrap_or_else(|_| "cli".to_owned())
}

fn print_page(page: &Page, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&serde_json::json!({ "items": page.items, "next_cursor": page.next_cursor }));
    }
    print_letters(&page.items)?;
    match &page.next_cursor {
        Some(cursor) => print(&format!("more: --cursor {cursor}\n")),
        None => Ok(()),
    }
}

/// Prints letters as a table.
pub fn print_letters(letters: &[Letter]) -> anyhow::Result<()> {
    let mut rows = table(["ID", "STATUS", "FROM", "GROUP", "PARKED", "ERROR"]);
    for letter in letters {
        let context = letter.context.as_ref();
        let from =
            context.map(|context| format!("{}-{}@{}", context.topic, context.partition, context.offset));
        rows.add_row([
            letter.id.to_string(),
            status(letter),
            from.map_or_else(|| letter.source.to_string(), |from| visible(&from)),
            context.map_or_else(|| "-".to_owned(), |context| visible(&context.group)),
            time(letter.parked_at_ms),
            context.map_or_else(
                || "written by another tool".to_owned(),
                |context| visible(&shorten(&context.error)),
            ),
        ]);
    }
    print_table(&rows)
}

fn print_queues(queues: &[Queue]) -> anyhow::Result<()> {
    let mut rows = table(["KEY", "GROUP", "PARTITION", "FIRST", "STANDING", "WAITING"]);
    for queue in queues {
        rows.add_row([
            lossy(&queue.key),
            visible(&queue.group),
            queue.partition.to_string(),
            queue.first.to_string(),
            queue.standing.name().to_owned(),
            queue.waiting.to_string(),
        ]);
    }
    print_table(&rows)
}

fn print_letter(letter: &Letter) -> anyhow::Result<()> {
    let mut text = format!("letter    {} of {}\nstatus    {}\n", letter.id, letter.source, status(letter));
    text.push_str(&format!("parked    {}\n", time(letter.parked_at_ms)));
    if let Some(resolution) = &letter.resolution {
        text.push_str(&format!(
            "resolved  {} by {}\n",
            time(Some(resolution.at_ms)),
            visible(&resolution.by)
        ));
    }
    if let Some(context) = &letter.context {
        text.push_str(&format!("error     {}\n", visible(&context.error)));
        for cause in &context.causes {
            text.push_str(&format!("because   {}\n", visible(cause)));
        }
        text.push_str(&format!(
            "from      {}-{} offset {}\n",
            visible(&context.topic),
            context.partition,
            context.offset
        ));
        text.push_str(&format!(
            "group     {}, attempts {}, redrives {}\n",
            visible(&context.group),
            context.attempts,
            context.redrives
        ));
        text.push_str(&format!("failed    first {}\n", time(Some(context.first_failure_ms))));
    }
    if let Some(Line { behind: Some(first), waiting }) = letter.line {
        text.push_str(&format!("waits     behind {first}, as {waiting} of its key do\n"));
    }
    for (name, value) in &letter.headers {
        text.push_str(&format!("header    {} = {}\n", lossy(name), value.map_or("null".into(), lossy)));
    }
    text.push_str(&format!("key       {}\n", letter.key.as_deref().map_or("null".into(), lossy)));
    text.push_str(&format!("value     {}\n", letter.value.as_deref().map_or("null".into(), lines)));
    print(&text)
}

/// Prints what was done. That nothing was done of what was named is an error, for scripts.
fn finish(verb: &str, selection: &Selection, summary: &Summary, json: bool) -> anyhow::Result<()> {
    print_summary(verb, summary, json)?;
    let is_in_vain = summary.done == 0 && summary.skipped > 0 && matches!(selection, Selection::Ids(_));
    ensure!(!is_in_vain, "nothing was {verb}");
    Ok(())
}

fn print_summary(verb: &str, summary: &Summary, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(summary);
    }
    for skipped in &summary.skipped_letters {
        eprintln!("skipped {}: {}", skipped.id, skipped.reason);
    }
    let would = if summary.dry_run { "would be " } else { "" };
    let follow = match summary.behind {
        0 => String::new(),
        behind => format!(", {behind} follow in the order of their keys"),
    };
    print(&format!("{would}{verb} {}, skipped {}{follow}\n", summary.done, summary.skipped))
}

fn status(letter: &Letter) -> String {
    match (&letter.resolution, letter.line) {
        (Some(resolution), _) => resolution.kind.name().to_owned(),
        (None, Some(Line { behind: Some(first), .. })) => format!("behind {first}"),
        (None, Some(Line { behind: None, waiting })) if waiting > 0 => format!("parked, {waiting} wait"),
        (None, _) => "parked".to_owned(),
    }
}

fn time(at_ms: Option<i64>) -> String {
    let at = at_ms.and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

fn lossy(bytes: &[u8]) -> String {
    visible(&String::from_utf8_lossy(bytes))
}

/// A value keeps its lines, of which none begins where a field does.
fn lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(visible).collect::<Vec<_>>().join("\n          ")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(ERROR_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
