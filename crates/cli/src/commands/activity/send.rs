//! `tidings activity send`: one activity from the command line, or many from a file.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::args::SendArgs;
use crate::http_client::HttpClient;
use crate::output::{print, print_json, thousands};

const PATH: &str = "/api/v1/activities";
/// Bytes read from the file at a time, and pieces read ahead of the connection.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_AHEAD: usize = 4;

/// Sends and prints the results.
pub async fn run(args: SendArgs) -> anyhow::Result<()> {
    let mut client = HttpClient::new(&args.http.http);
    if let Some(file) = &args.file {
        return send_file(&mut client, file, args.http.json).await;
    }
    let body = serde_json::to_vec(&activity(&args)?)?;
    let answer: Value = client.post(PATH, "application/json", body.into()).await?.into_json()?;
    if args.http.json {
        return print_json(&answer);
    }
    let result = &answer["results"][0];
    print(&format!("accepted {}\n", result["id"].as_str().unwrap_or("?")))
}

/// The activity that the arguments describe; what is wrong with it, the platform says best.
fn activity(args: &SendArgs) -> anyhow::Result<Value> {
    let mut activity = Map::new();
    let fields = [
        ("id", &args.id),
        ("tenant", &args.tenant),
        ("action", &args.action),
        ("occurred_at", &args.occurred_at),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            activity.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(actor) = &args.actor {
        activity.insert("actor".to_owned(), entity("--actor", actor)?);
    }
    if !args.target.is_empty() {
        let targets: Result<Vec<Value>, _> =
            args.target.iter().map(|target| entity("--target", target)).collect();
        activity.insert("targets".to_owned(), Value::Array(targets?));
    }
    if let Some(metadata) = &args.metadata {
        let metadata: Value = serde_json::from_str(metadata).context("--metadata is not JSON")?;
        activity.insert("metadata".to_owned(), metadata);
    }
    Ok(Value::Object(activity))
}

fn entity(flag: &str, text: &str) -> anyhow::Result<Value> {
    let mut parts = text.splitn(3, ':');
    let (kind, id, name) = (parts.next(), parts.next(), parts.next());
    let (Some(kind), Some(id)) = (kind, id) else {
        bail!("{flag}: expected TYPE:ID or TYPE:ID:NAME, found {text:?}");
    };
    let mut entity = json!({ "type": kind, "id": id });
    if let Some(name) = name {
        entity["name"] = json!(name);
    }
    Ok(entity)
}

/// Streams a file; its length does not matter. Refused lines are reported with their number.
async fn send_file(client: &mut HttpClient, file: &Path, json: bool) -> anyhow::Result<()> {
    let (pieces, mut receiver) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_AHEAD);
    let name = file.display().to_string();
    let source: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("open {name}"))?)
    };
    // A thread of its own, which may be left behind in a read that never ends: a terminal's, for instance.
    std::thread::spawn(move || read_pieces(source, &pieces));
    let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let frames = futures_util::StreamExt::map(stream, |piece| piece.map(Frame::data));
    let body = StreamBody::new(frames).boxed_unsync();
    let response = client.post_stream(PATH, "application/x-ndjson", body).await?;
    if response.status() != hyper::StatusCode::OK {
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        return Err(crate::http_client::Answer { status, body }.problem());
    }
    let mut results = Results { json, ..Results::default() };
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the answer broke off")?.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            results.take(&line)?;
        }
    }
    results.take(&pending)?;
    results.finish()
}

fn read_pieces(mut source: Box<dyn Read + Send>, pieces: &mpsc::Sender<std::io::Result<Bytes>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let piece = match source.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                Ok(Bytes::from(piece))
            }
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        // No receiver means that the server has already answered, which says what happened.
        if pieces.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

/// One result line per input line.
#[derive(Default)]
struct Results {
    json: bool,
    lines: u64,
    refused: u64,
}

impl Results {
    fn take(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.lines += 1;
        let result: Value = serde_json::from_slice(line).context("read a result line")?;
        let refused = result.get("id").is_none() || result.get("via").is_none();
        self.refused += u64::from(refused);
        if self.json {
            return print(&format!("{result}\n"));
        }
        if refused {
            let line = result["line"].as_u64().unwrap_or(self.lines);
            let detail = result["error"]["detail"].as_str().map_or_else(|| result.to_string(), str::to_owned);
            eprintln!("line {line}: {detail}");
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        if !self.json {
            print(&format!("accepted {}\n", thousands(self.lines - self.refused)))?;
        }
        match self.refused {
            0 => Ok(()),
            refused => Err(anyhow!("{} of {} lines were refused", thousands(refused), thousands(self.lines))),
        }
    }
}
