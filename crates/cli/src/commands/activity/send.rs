//! `tidings activity send`: one activity from the command line, or many from a file.
//!
//! Invariant: it succeeds only if the whole file was sent and each of its lines has a result that is no refusal.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

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
    let body = serde_json::to_vec(&Draft::of(&args)?)?;
    let answer: Value = client.post(PATH, "application/json", body.into()).await?.into_json()?;
    if args.http.json {
        return print_json(&answer);
    }
    let result = &answer["results"][0];
    print(&format!("accepted {}\n", result["id"].as_str().unwrap_or("?")))
}

/// What the arguments describe; what is wrong with it, the platform says best.
#[derive(Serialize)]
struct Draft<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Value>,
    /// Its text goes out as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

impl<'a> Draft<'a> {
    fn of(args: &'a SendArgs) -> anyhow::Result<Self> {
        let metadata = args.metadata.as_deref().map(serde_json::from_str);
        let targets = args.target.iter().map(|target| entity("--target", target));
        Ok(Self {
            id: args.id.as_deref(),
            tenant: args.tenant.as_deref(),
            action: args.action.as_deref(),
            occurred_at: args.occurred_at.as_deref(),
            actor: args.actor.as_deref().map(|actor| entity("--actor", actor)).transpose()?,
            targets: targets.collect::<Result<_, _>>()?,
            metadata: metadata.transpose().context("--metadata is not JSON")?,
        })
    }
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

async fn send_file(client: &mut HttpClient, file: &Path, json: bool) -> anyhow::Result<()> {
    let name = file.display().to_string();
    let source: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("open {name}"))?;
        ensure!(
            !opened.metadata()?.is_dir(),
            "{name} is a directory: expected a file with an activity in each line"
        );
        Box::new(opened)
    };
    send_lines(client, source, json).await
}

/// Streams lines; how many does not matter. Those that are refused are reported with their number.
async fn send_lines(client: &mut HttpClient, source: Box<dyn Read + Send>, json: bool) -> anyhow::Result<()> {
    let (pieces, mut receiver) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_AHEAD);
    let (at_end, mut lines_read) = oneshot::channel();
    // A thread of its own, which may be left behind in a read that never ends: a terminal's, for instance.
    std::thread::spawn(move || read_pieces(source, &pieces, at_end));
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
    results.finish(lines_read.try_recv().ok())
}

/// Hands the pieces out, and `at_end`, before the last of them is known to be the last, how many lines they have.
fn read_pieces(
    mut source: Box<dyn Read + Send>,
    pieces: &mpsc::Sender<std::io::Result<Bytes>>,
    at_end: oneshot::Sender<u64>,
) {
    let mut lines = LineCount::default();
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let piece = match source.read(&mut piece) {
            Ok(0) => {
                // Nobody is there to hear it if the answer has ended already.
                let _ = at_end.send(lines.count);
                return;
            }
            Ok(length) => {
                piece.truncate(length);
                lines.add(&piece);
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

/// Lines that are not blank, as the platform counts them.
#[derive(Default)]
struct LineCount {
    count: u64,
    /// Whether the line at hand is counted.
    is_counted: bool,
}

impl LineCount {
    fn add(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                self.is_counted = false;
            } else if !self.is_counted && !byte.is_ascii_whitespace() {
                self.is_counted = true;
                self.count += 1;
            }
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

    /// After the answer's end. `lines_read` is the input's, if it has been read to its end: the platform ends an answer before
    /// that if nothing comes for too long.
    fn finish(self, lines_read: Option<u64>) -> anyhow::Result<()> {
        if !self.json {
            print(&format!("accepted {}\n", thousands(self.lines - self.refused)))?;
        }
        let results = thousands(self.lines);
        match lines_read {
            None => bail!(
                "the answer ended before the input, after {results} results: send the lines behind them again"
            ),
            Some(lines) if self.lines < lines => {
                bail!(
                    "the answer ended after {results} results for {} lines: send the lines behind them again",
                    thousands(lines)
                )
            }
            Some(_) => {}
        }
        match self.refused {
            0 => Ok(()),
            refused => Err(anyhow!("{} of {} lines were refused", thousands(refused), thousands(self.lines))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener};

    use super::super::block_on;
    use super::*;

    /// Ends a request's body.
    const END: &str = "0\r\n\r\n";

    /// A platform that answers one request with these lines, as soon as so much of it has come.
    fn platform(awaited: &'static str, results: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !String::from_utf8_lossy(&request).contains(awaited) {
                let length = stream.read(&mut buffer).unwrap();
                assert_ne!(length, 0, "the request ended");
                request.extend_from_slice(&buffer[..length]);
            }
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{:x}\r\n{results}\r\n{END}", results.len()).as_bytes()).unwrap();
            // Until the client has read that.
            let _ = stream.read_to_end(&mut request);
        });
        address
    }

    /// A producer was silent for longer than the platform waits: `accepted 1` and success, and the lines that followed were lost.
    #[test]
    fn lines_without_a_result_are_no_success() {
        let check = |input: &str, is_ended: bool, awaited, results, expect: Result<(), &str>| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(input.as_bytes()).unwrap();
            let silent = (!is_ended).then_some(writer);
            let mut client = HttpClient::new(platform(awaited, results).to_string());
            let sent = block_on(send_lines(&mut client, Box::new(reader), true));
            drop(silent);
            assert_eq!(sent.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
        };
        let one = "{\"id\":\"1\",\"via\":\"cluster\"}\n";
        let refused = "{\"line\":1,\"error\":{}}\n";
        let again = "send the lines behind them again";
        let unread = format!("the answer ended before the input, after 1 results: {again}");
        check("first\n", false, "first", one, Err(&unread));
        let too_few = format!("the answer ended after 1 results for 2 lines: {again}");
        check("\nfirst\n \r\n\nsecond", true, END, one, Err(&too_few));
        check("\nfirst\n \r\n\n", true, END, one, Ok(()));
        check("first", true, END, refused, Err("1 of 1 lines were refused"));
        check("", true, END, "\n", Ok(()));
    }

    #[test]
    fn lines_are_counted_across_pieces() {
        let mut lines = LineCount::default();
        for piece in ["a", "b\n", " ", "\n\nc\r\n", "\r\n d", " e"] {
            lines.add(piece.as_bytes());
        }
        assert_eq!(lines.count, 3);
    }
}
