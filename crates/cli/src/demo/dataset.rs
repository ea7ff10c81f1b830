//! Where the demo's rows come from: two weeks inside the executable, the whole year in a file beside it.
//!
//! Owns finding and decompressing the data. It reads as a stream: memory does not grow with the length of the data.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const SAMPLE: &[u8] = include_bytes!("../../../../data/nycflights13/flights_2013-01-01_14.csv.gz");
const AIRLINES: &[u8] = include_bytes!("../../../../data/nycflights13/airlines.csv");
const FULL_YEAR: &str = "data/nycflights13/flights_2013.csv.zst";

/// Bytes of decompressed CSV read ahead.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// One of the shipped data sets; opening it twice reads the same rows twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// 1 to 14 January 2013: 12,208 flights.
    Sample,
    /// All of 2013: 336,776 flights.
    FullYear(PathBuf),
}

/// The rows of a data set, as CSV.
pub type Rows = csv::Reader<Box<dyn Read + Send>>;

impl Dataset {
    /// The sample, or the year from the workspace's `data/` directory; an error names the places looked at.
    pub fn find(full: bool) -> anyhow::Result<Dataset> {
        if !full {
            return Ok(Dataset::Sample);
        }
        let places = candidate_places();
        match places.iter().find(|path| path.is_file()) {
            Some(path) => Ok(Dataset::FullYear(path.clone())),
            None => {
                let looked_at: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
                bail!("no flight data of the whole year: looked for {}", looked_at.join(", "))
            }
        }
    }

    /// The number of flights and of the events they become: known, so that progress can be shown.
    pub fn size(&self) -> (u64, u64) {
        match self {
            Dataset::Sample => (12_208, 36_534),
            Dataset::FullYear(_) => (336_776, 1_001_615),
        }
    }

    /// Begins to read the rows.
    pub fn open(&self) -> anyhow::Result<Rows> {
        let bytes: Box<dyn Read + Send> = match self {
            Dataset::Sample => Box::new(flate2::read::GzDecoder::new(SAMPLE)),
            Dataset::FullYear(path) => {
                let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                let decoder = zstd::Decoder::with_buffer(BufReader::new(file))
                    .with_context(|| format!("decompress {}", path.display()))?;
                Box::new(decoder)
            }
        };
        Ok(csv::ReaderBuilder::new().buffer_capacity(READ_AHEAD_BYTES).from_reader(bytes))
    }
}

/// The names of the airlines by their code.
pub fn airlines() -> anyhow::Result<HashMap<String, String>> {
    let mut reader = csv::Reader::from_reader(AIRLINES);
    reader.deserialize().map(|row| row.context("read airlines.csv")).collect()
}

/// The working directory, the directories above the executable (`target/release/tidings`), and the source tree.
fn candidate_places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(FULL_YEAR)];
    let exe = std::env::current_exe().unwrap_or_default();
    places.extend(exe.ancestors().skip(1).take(4).map(|above| above.join(FULL_YEAR)));
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(FULL_YEAR));
    places
}
