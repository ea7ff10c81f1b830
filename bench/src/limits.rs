//! What the machine itself can do, measured in the same run: no broker can be faster.
//!
//! Owns the physical limits: the loopback interface, the page cache and the disk, each driven by the least code that
//! does the job.

use crate::figures::{
    DISK, LOOPBACK, LOOPBACK_SENDFILE, PAGE_CACHE, RECEIVE_CPU, SENDFILE_CPU, SYNC_CPU, SYNC_P50, SYNC_P99,
};
use crate::lab::Lab;
use crate::scenarios::Measured;
use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What is written or read at once, about a batch of a producer.
const BLOCK: usize = 1 << 20;
/// What is written between two syncs when bandwidth is measured.
const SYNC_BLOCKS: usize = 4;
/// Appends of 1 KiB, each followed by a sync.
const SMALL_SYNCS: usize = 1000;

/// Measures every limit once.
pub fn measure(lab: &Lab) -> Result<Measured> {
    let bytes = lab.sizes.bytes;
    let directory = tempfile::Builder::new().prefix("limits").tempdir_in(&lab.work_dir)?;
    lab.settle();
    let mut measured = vec![(&LOOPBACK, megabytes_per_second(bytes, loopback(bytes)?))];
    let page_cache = directory.path().join("page-cache");
    measured.push((&PAGE_CACHE, megabytes_per_second(bytes, write_file(&page_cache, bytes)?)));
    let (seconds, cpu_seconds) = sendfile(&File::open(&page_cache)?, bytes)?;
    measured.push((&LOOPBACK_SENDFILE, megabytes_per_second(bytes, seconds)));
    measured.push((&SENDFILE_CPU, cpu_seconds / (bytes as f64 / 1e9)));
    lab.settle();
    let received = File::create(directory.path().join("received"))?;
    measured.push((&RECEIVE_CPU, receive(received, bytes)? / (bytes as f64 / 1e9)));
    lab.settle();
    measured
        .push((&DISK, megabytes_per_second(bytes, synced_writes(&directory.path().join("disk"), bytes)?)));
    let cpu_before = thread_cpu_seconds();
    let mut syncs_ms = small_syncs(&directory.path().join("small"))?;
    measured.push((&SYNC_CPU, (thread_cpu_seconds() - cpu_before) / SMALL_SYNCS as f64 * 1e6));
    syncs_ms.sort_by(f64::total_cmp);
    measured.push((&SYNC_P50, syncs_ms[SMALL_SYNCS / 2]));
    measured.push((&SYNC_P99, syncs_ms[SMALL_SYNCS * 99 / 100]));
    Ok(measured)
}

/// Seconds to send `bytes` from memory to a reader that drops them.
fn loopback(bytes: usize) -> Result<f64> {
    let block = vec![7; BLOCK];
    let (seconds, _) = to_sink(drop_all, |stream| {
        for _ in 0..bytes / BLOCK {
            stream.write_all(&block)?;
        }
        Ok(())
    })?;
    Ok(seconds)
}

/// Seconds, and processor time of the sender, to send a file in the page cache to a reader that drops it.
fn sendfile(file: &File, bytes: usize) -> Result<(f64, f64)> {
    let mut cpu_seconds = 0.0;
    let (seconds, _) = to_sink(drop_all, |stream| {
        let before = thread_cpu_seconds();
        let mut sent = 0;
        while sent < bytes {
            let count = rustix::fs::sendfile(&*stream, file, None, (bytes - sent).min(BLOCK))?;
            ensure!(count > 0, "the file ended after {sent} of {bytes} bytes");
            sent += count;
        }
        cpu_seconds = thread_cpu_seconds() - before;
        Ok(())
    })?;
    Ok((seconds, cpu_seconds))
}

/// Processor time of a reader that checks and keeps what it receives, as a broker must.
fn receive(mut file: File, bytes: usize) -> Result<f64> {
    let block = vec![7; BLOCK];
    let keep = move |mut stream: TcpStream| -> Result<f64> {
        let mut buffer = vec![0; BLOCK];
        let (before, mut crc) = (thread_cpu_seconds(), 0);
        while let Ok(()) = stream.read_exact(&mut buffer) {
            crc ^= crc32c::crc32c(&buffer);
            file.write_all(&buffer)?;
        }
        std::hint::black_box(crc);
        Ok(thread_cpu_seconds() - before)
    };
    let (_, cpu_seconds) = to_sink(keep, |stream| {
        for _ in 0..bytes / BLOCK {
            stream.write_all(&block)?;
        }
        Ok(())
    })?;
    Ok(cpu_seconds)
}

fn drop_all(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; BLOCK];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Connects `send` to `sink` over loopback; answers the seconds until the sink has everything, and what it says.
fn to_sink<T: Send + 'static>(
    sink: impl FnOnce(TcpStream) -> Result<T> + Send + 'static,
    send: impl FnOnce(&mut TcpStream) -> Result<()>,
) -> Result<(f64, T)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    let receiver = std::thread::spawn(move || sink(accepted));
    let start = Instant::now();
    send(&mut stream)?;
    drop(stream);
    let said = receiver.join().expect("the sink panicked")?;
    Ok((start.elapsed().as_secs_f64(), said))
}

/// Seconds to write a file without asking for durability.
fn write_file(path: &std::path::Path, bytes: usize) -> Result<f64> {
    let (mut file, block) = (File::create(path)?, vec![7; BLOCK]);
    let start = Instant::now();
    for _ in 0..bytes / BLOCK {
        file.write_all(&block)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds to write a file that is durable at every few megabytes.
fn synced_writes(path: &std::path::Path, bytes: usize) -> Result<f64> {
    let (mut file, block) = (File::create(path)?, vec![7; BLOCK]);
    let start = Instant::now();
    for _ in 0..bytes / BLOCK / SYNC_BLOCKS {
        for _ in 0..SYNC_BLOCKS {
            file.write_all(&block)?;
        }
        file.sync_data()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// How long each small append takes to be durable, in milliseconds, at a pace that leaves the disk idle between them.
fn small_syncs(path: &std::path::Path) -> Result<Vec<f64>> {
    let (mut file, block) = (File::create(path)?, vec![7; 1024]);
    let mut syncs_ms = Vec::with_capacity(SMALL_SYNCS);
    for _ in 0..SMALL_SYNCS {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        syncs_ms.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_micros(300));
    }
    Ok(syncs_ms)
}

fn thread_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn megabytes_per_second(bytes: usize, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}
