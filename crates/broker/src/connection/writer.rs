//! Answers on their way to the socket.
//!
//! Owns the one function that puts an encoded answer on a connection: its pieces in memory by vectored writes, its
//! record batches from the log file. Large file ranges go by `sendfile`, without passing through this process; small
//! ones are read and leave in the same write as what surrounds them, which costs fewer calls. Decides nothing about
//! the content of an answer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tidings_log::FileSlice;
use tidings_wire::Chunk;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most pieces handed to one vectored write.
const MAX_SLICES: usize = 64;

/// One answer: encoded pieces, and the file ranges their external chunks stand for (the token is the index).
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) files: Vec<FileSlice>,
}

/// Answers queued for one write, in order.
pub(crate) struct Outbox {
    queue: VecDeque<Piece>,
    bytes: usize,
    /// File ranges from this size on go by `sendfile` (`socket.sendfile.min.bytes`).
    sendfile_min_bytes: usize,
}

enum Piece {
    Bytes(Bytes),
    File(FileSlice),
}

impl Outbox {
    pub(crate) fn new(sendfile_min_bytes: usize) -> Outbox {
        Outbox { queue: VecDeque::new(), bytes: 0, sendfile_min_bytes }
    }

    /// Bytes queued and not yet written.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Queues an answer, which is a frame with its length. Small file ranges are read here.
    pub(crate) fn push(&mut self, answer: Answer) -> io::Result<()> {
        for chunk in answer.chunks {
            match chunk {
                Chunk::Bytes(bytes) => self.push_bytes(bytes),
                Chunk::External { token, len } => {
                    let slice = answer
                        .files
                        .get(token as usize)
                        .ok_or_else(|| io::Error::other("no such file range"))?;
                    debug_assert_eq!(slice.len, len as usize);
                    self.push_file(slice.clone())?;
                }
            }
        }
        Ok(())
    }

    fn push_bytes(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.queue.push_back(Piece::Bytes(bytes));
    }

    fn push_file(&mut self, slice: FileSlice) -> io::Result<()> {
        if slice.len < self.sendfile_min_bytes || slice.as_fd().is_none() {
            self.push_bytes(slice.read()?);
        } else {
            self.bytes += slice.len;
            self.queue.push_back(Piece::File(slice));
        }
        Ok(())
    }

    /// Writes everything queued; returns when the last byte is in the socket's buffer.
    pub(crate) async fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while let Some(front) = self.queue.front_mut() {
            let written = match front {
                Piece::File(slice) => {
                    let sent = send_file(stream, slice).await?;
                    slice.position += sent as u64;
                    slice.len -= sent;
                    if slice.len == 0 {
                        self.queue.pop_front();
                    }
                    sent
                }
                Piece::Bytes(_) => self.write_pieces(stream).await?,
            };
            self.bytes -= written;
        }
        Ok(())
    }

    async fn write_pieces(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let leading = self.queue.iter().take_while(|piece| matches!(piece, Piece::Bytes(_))).count();
        // More follows: the kernel may wait for it and fill its packets.
        let flags = if leading < self.queue.len() { SendFlags::MORE } else { SendFlags::empty() };
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut count = 0;
                for (slice, piece) in slices.iter_mut().zip(self.queue.iter().take(leading)) {
                    let Piece::Bytes(bytes) = piece else { break };
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                let sent = rustix::net::sendmsg(
                    stream,
                    &slices[..count],
                    &mut SendAncillaryBuffer::default(),
                    flags | SendFlags::NOSIGNAL,
                )?;
                Ok(sent)
            })
            .await?;
        self.forget(sent);
        Ok(sent)
    }

    fn forget(&mut self, mut sent: usize) {
        while let Some(Piece::Bytes(bytes)) = self.queue.front_mut() {
            if bytes.len() > sent {
                let _ = bytes.split_to(sent);
                return;
            }
            sent -= bytes.len();
            self.queue.pop_front();
        }
    }
}

async fn send_file(stream: &TcpStream, slice: &FileSlice) -> io::Result<usize> {
    let file = slice.as_fd().ok_or_else(|| io::Error::other("a file range without a descriptor"))?;
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut position = slice.position;
            Ok(rustix::fs::sendfile(stream, file, Some(&mut position), slice.len)?)
        })
        .await?;
    if sent == 0 {
        // The file is shorter than the range the log promised: the frame cannot be completed.
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    Ok(sent)
}
