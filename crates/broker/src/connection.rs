//! One client connection: one task that reads frames, has them handled and writes answers.
//!
//! Invariants: answers leave in the order of their requests. A frame is decoded and, for Produce, appended to the log
//! before the next frame is looked at, so that pipelined batches keep their order; Produce answers then wait for the
//! group commit in a bounded queue while further frames are read. Every other API is finished, or given up, before the
//! next frame is looked at. A client that does not read its answers is not read from either, so its backlog is bounded by that queue.
//!
//! What ends a connection: the peer, a length that cannot be one, a frame its API cannot decode, silence for
//! `connections.max.idle.ms`, a large body that stalls, a failed write, and the broker's end. A peer that has only finished
//! sending still gets the answers that come soon, but none that waits for others: nothing tells it from one that is gone, and
//! what it has sent behind such a request, a member's leaving perhaps, must be heard. That is done without an answer. Nothing here
//! knows what an API does.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use thiserror::Error;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

mod budget;
mod frame;
mod intake;
mod writer;

use crate::handlers::{self, Begun, PendingProduce, RequestError};
use crate::lazy_timer::LazyTimer;
use crate::shared::Shared;
pub(crate) use budget::{RequestBudget, Reservation};
use frame::FrameError;
use intake::{BODY_STALL, Frame, Intake};
pub(crate) use writer::Answer;
use writer::Outbox;

/// Produce requests of one connection that may wait for the commit at a time.
const MAX_PIPELINED_PRODUCES: usize = 64;

/// Answers are written once this many bytes are queued, even when more are ready.
const WRITE_BATCH_BYTES: usize = 256 * 1024;

/// So many requests are handled before other connections have their turn.
const REQUESTS_IN_TURN: usize = 4;

/// How long all that is left to do for a peer that has finished sending may take, its answers included: it may be gone.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(10);

/// What "no limit" is to a timer.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why the broker closed a connection.
#[derive(Debug, Error)]
pub(crate) enum Closed {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("i/o: {0}")]
    Io(#[from] io::Error),
    #[error("silent for connections.max.idle.ms")]
    Idle,
    #[error("a request's body stalled after {arrived} of {expected} bytes")]
    Stalled { arrived: usize, expected: usize },
    #[error("the peer hung up")]
    ByPeer,
    #[error("the broker is stopping")]
    Stopping,
}

impl Closed {
    /// Whether the peer broke the protocol: worth a line in the log.
    pub(crate) fn is_protocol_error(&self) -> bool {
        matches!(self, Closed::Frame(_) | Closed::Request(_))
    }
}

/// Serves one connection until it ends; returns why it did.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    shared: Arc<Shared>,
    stopping: watch::Receiver<bool>,
) -> Closed {
    let idle = u64::try_from(shared.settings.long("connections.max.idle.ms")).ok().map(Duration::from_millis);
    let outbox = Outbox::new(shared.sendfile_min_bytes);
    let mut connection = Connection {
        intake: Intake::new(
            shared.socket_request_max_bytes,
            shared.request_budget.clone(),
            shared.clock.clone(),
        ),
        client: handlers::Client { peer, local },
        shared,
        stream,
        stopping,
        ended: None,
        pending: VecDeque::new(),
        outbox,
        long_poll: LazyTimer::default(),
        idle,
        idle_timer: Box::pin(tokio::time::sleep(idle.unwrap_or(FOR_EVER))),
    };
    match connection.run().await {
        Ok(never) => match never {},
        Err(closed) => closed,
    }
}

struct Connection {
    shared: Arc<Shared>,
    client: handlers::Client,
    stream: TcpStream,
    stopping: watch::Receiver<bool>,
    intake: Intake,
    /// None while the peer may send more.
    ended: Option<Ended>,
    pending: VecDeque<PendingProduce>,
    outbox: Outbox,
    long_poll: LazyTimer,
    idle: Option<Duration>,
    /// Set again only when it fires: moving a timer for every request would cost more than the request's own waiting.
    idle_timer: Pin<Box<Sleep>>,
}

/// A peer that has finished sending.
#[derive(Clone, Copy)]
struct Ended {
    /// Until when it is worked for.
    until: Instant,
    /// Not once a request of it was given up: answers to what comes behind would be taken for that one's.
    gets_answers: bool,
}

impl Ended {
    fn now() -> Ended {
        Ended { until: Instant::now() + HALF_CLOSED_PATIENCE, gets_answers: true }
    }

    /// Waits until its time is over, or a peer that gets answers resets the connection.
    async fn given_up(self, stream: &TcpStream) {
        let reset = async {
            match self.gets_answers {
                // Whatever comes of it, there is nobody left to answer.
                true => drop(stream.ready(Interest::ERROR).await),
                false => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout_at(self.until, reset).await;
    }
}

impl Connection {
    async fn run(&mut self) -> Result<std::convert::Infallible, Closed> {
        loop {
            self.handle_buffered().await?;
            self.collect_ready().await?;
            if self.has_room() && self.intake.has_frame()? {
                // The queue was full, and is not any more: nothing that arrives would remind us of these frames.
                continue;
            }
            if self.is_gone() && self.has_room() {
                return Err(Closed::ByPeer);
            }
            if self.pending.is_empty() {
                self.read_or_idle().await?;
            } else {
                self.read_or_produced().await?;
            }
        }
    }

    /// Handles the frames that have arrived, as far as the queue of pending answers has room.
    async fn handle_buffered(&mut self) -> Result<(), Closed> {
        let mut handled = 0;
        while self.has_room() {
            let Some(frame) = self.intake.next_frame()? else { break };
            self.shared.metrics.bytes_in(frame.bytes.len() + frame::LENGTH_BYTES);
            // Before it is handled, which may take long: a large buffer is then the frame's alone, and goes with it.
            self.intake.taken();
            self.handle(frame).await?;
            handled += 1;
            if handled % REQUESTS_IN_TURN == 0 && self.intake.has_frame()? {
                self.collect_ready().await?;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Whether there is nobody to answer.
    fn is_gone(&self) -> bool {
        self.ended.is_some_and(|ended| !ended.gets_answers)
    }

    fn has_room(&self) -> bool {
        self.pending.len() < MAX_PIPELINED_PRODUCES
    }

    async fn handle(&mut self, Frame { bytes, reservation }: Frame) -> Result<(), Closed> {
        match handlers::begin(&self.shared, bytes)? {
            Begun::Produce(mut produce) => {
                let alone = self.pending.is_empty() && reservation.is_none() && !self.intake.has_more();
                if alone && self.shared.may_commit_here {
                    produce.commit_here();
                } else {
                    produce.begin_commit();
                }
                self.pending.push_back(produce);
            }
            Begun::Done => {}
            // It would begin to wait, and perhaps have others wait, for nobody.
            Begun::Other(incoming) if self.is_gone() && incoming.waits_for_others() => {}
            Begun::Other(mut incoming) => {
                // Its answer comes after those of the produces before it, whose commit needs nothing from us.
                while let Some(produce) = self.pending.front_mut() {
                    poll_fn(|cx| produce.poll_committed(cx)).await;
                    self.collect_ready().await?;
                }
                incoming.hold(reservation);
                let waits_for_others = incoming.waits_for_others();
                let answered = {
                    let handling =
                        pin!(handlers::finish(&self.shared, &self.client, incoming, &mut self.long_poll));
                    let (intake, stream) = (&mut self.intake, &mut self.stream);
                    let (stopping, ended) = (&mut self.stopping, &mut self.ended);
                    wait_for(handling, waits_for_others, intake, stream, stopping, ended).await?
                };
                if let Some(answer) = answered {
                    self.push(answer?)?;
                }
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes the answers of those produces that are committed, oldest first.
    async fn collect_ready(&mut self) -> Result<(), Closed> {
        while let Some(produce) = self.pending.front_mut() {
            if !produce.is_committed() {
                break;
            }
            if let Some(produce) = self.pending.pop_front() {
                let answer = produce.answer(&self.shared)?;
                self.push(answer)?;
            }
            if self.outbox.len() >= WRITE_BATCH_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    fn push(&mut self, answer: Answer) -> Result<(), Closed> {
        if self.is_gone() {
            return Ok(());
        }
        Ok(self.outbox.push(answer)?)
    }

    async fn read_or_produced(&mut self) -> Result<(), Closed> {
        let may_read = self.has_room();
        let pending = &mut self.pending;
        let mut produced = poll_fn(|cx| match pending.front_mut() {
            Some(produce) => produce.poll_committed(cx),
            None => Poll::Ready(()),
        });
        tokio::select! {
            biased;
            () = &mut produced => return Ok(()),
            read = self.intake.read(&mut self.stream), if may_read => match read {
                Err(Closed::ByPeer) => {}
                read => return read,
            },
        }
        // Whoever comes back when all is answered finds the end again.
        let ended = *self.ended.get_or_insert_with(Ended::now);
        tokio::select! {
            biased;
            () = produced => Ok(()),
            () = ended.given_up(&self.stream) => Err(Closed::ByPeer),
        }
    }

    async fn read_or_idle(&mut self) -> Result<(), Closed> {
        let silent_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                read = self.intake.read(&mut self.stream) => return read,
                () = stopped(&mut self.stopping) => return Err(Closed::Stopping),
                () = self.idle_timer.as_mut() => {
                    let deadline = silent_since + self.idle.unwrap_or(FOR_EVER);
                    if self.idle.is_some() && Instant::now() >= deadline {
                        return Err(Closed::Idle);
                    }
                    self.idle_timer.as_mut().reset(deadline);
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        if self.outbox.len() == 0 {
            return Ok(());
        }
        self.shared.metrics.bytes_out(self.outbox.len());
        // Whoever holds a part of the shared budget may not linger.
        let patience = match self.ended {
            Some(ended) => Some(ended.until.saturating_duration_since(Instant::now())),
            None if self.intake.has_claim() => Some(BODY_STALL),
            None => self.idle,
        };
        match tokio::time::timeout(patience.unwrap_or(FOR_EVER), self.outbox.flush(&self.stream)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Closed::Idle),
        }
    }
}

/// Waits for a handler while reading ahead a little, so that a hang-up ends a long poll: at once if it waits for others.
/// `None` if it was given up for that.
async fn wait_for<T>(
    mut handling: Pin<&mut impl Future<Output = T>>,
    waits_for_others: bool,
    intake: &mut Intake,
    stream: &mut TcpStream,
    stopping: &mut watch::Receiver<bool>,
    ended: &mut Option<Ended>,
) -> Result<Option<T>, Closed> {
    loop {
        tokio::select! {
            biased;
            output = &mut handling => return Ok(Some(output)),
            () = stopped(stopping) => return Err(Closed::Stopping),
            read = intake.read_ahead(stream) => match read {
                Err(Closed::ByPeer | Closed::Io(_)) if waits_for_others => {
                    *ended = Some(Ended { gets_answers: false, ..ended.unwrap_or_else(Ended::now) });
                    return Ok(None);
                }
                Err(Closed::ByPeer) => break,
                read => read?,
            },
        }
    }
    let ended = *ended.get_or_insert_with(Ended::now);
    tokio::select! {
        biased;
        output = handling => Ok(Some(output)),
        () = stopped(stopping) => Err(Closed::Stopping),
        () = ended.given_up(stream) => Err(Closed::ByPeer),
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the broker is gone altogether.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn ended(read: io::Result<usize>) -> Result<(), Closed> {
    match read {
        Ok(0) => Err(Closed::ByPeer),
        Ok(_) => Ok(()),
        Err(error) => Err(Closed::Io(error)),
    }
}
