//! Looking into compressed batches, which the broker otherwise never does.
//!
//! Owns the four codecs as Kafka frames them (KIP-110 for zstd; snappy in the xerial framing of Java clients and of KafkaJS,
//! or bare). Invariant: what comes out is bounded, so that a small batch cannot fill the memory. Used where a question is
//! about single records: offsets by timestamp.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use thiserror::Error;
use tidings_log::batch::{Batch, BatchHeader, Compression, Record};

/// The most that a batch may hold once it is unpacked.
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// The xerial framing begins with this, then two version numbers.
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;

/// Why a batch could not be looked into.
#[derive(Debug, Error)]
pub(crate) enum DecompressError {
    #[error("the bytes are not a record batch")]
    NotABatch,
    #[error("unknown compression codec {found}")]
    Codec { found: u8 },
    #[error("{codec:?}: {source}")]
    Io { codec: Compression, source: io::Error },
    #[error("more than {MAX_BYTES} bytes once unpacked")]
    TooLarge,
}

/// The first record of a batch that is wanted.
pub(crate) fn find_record(
    batch: Bytes,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<Record>, DecompressError> {
    let header = BatchHeader::parse(&batch).ok_or(DecompressError::NotABatch)?;
    let codec = header.compression().map_err(|found| DecompressError::Codec { found })?;
    let batch = Batch { header, bytes: batch };
    let payload = decompress(codec, batch.payload())?;
    Ok(batch.records_in(payload).flatten().find(wanted))
}

fn decompress(codec: Compression, payload: Bytes) -> Result<Bytes, DecompressError> {
    let unpacked = match codec {
        Compression::None => return Ok(payload),
        Compression::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(&payload[..]))?,
        Compression::Lz4 => read_bounded(codec, lz4_flex::frame::FrameDecoder::new(&payload[..]))?,
        Compression::Zstd => {
            let decoder =
                zstd::Decoder::new(&payload[..]).map_err(|source| DecompressError::Io { codec, source })?;
            read_bounded(codec, decoder)?
        }
        Compression::Snappy => unpack_snappy(&payload)?,
    };
    Ok(Bytes::from(unpacked))
}

fn read_bounded(codec: Compression, decoder: impl Read) -> Result<Vec<u8>, DecompressError> {
    let mut unpacked = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    decoder.take(limit).read_to_end(&mut unpacked).map_err(|source| DecompressError::Io { codec, source })?;
    if unpacked.len() > MAX_BYTES { Err(DecompressError::TooLarge) } else { Ok(unpacked) }
}

fn unpack_snappy(payload: &Bytes) -> Result<Vec<u8>, DecompressError> {
    let mut unpacked = Vec::new();
    if !payload.starts_with(XERIAL_MAGIC) {
        unpack_block(payload, &mut unpacked)?;
        return Ok(unpacked);
    }
    let mut rest = payload.slice(XERIAL_HEADER_BYTES.min(payload.len())..);
    while rest.len() >= size_of::<u32>() {
        let length = rest.get_u32() as usize;
        if length > rest.len() {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(DecompressError::Io { codec: Compression::Snappy, source });
        }
        unpack_block(&rest.split_to(length), &mut unpacked)?;
    }
    Ok(unpacked)
}

fn unpack_block(block: &[u8], unpacked: &mut Vec<u8>) -> Result<(), DecompressError> {
    let failed =
        |error: snap::Error| DecompressError::Io { codec: Compression::Snappy, source: error.into() };
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if unpacked.len() + length > MAX_BYTES {
        return Err(DecompressError::TooLarge);
    }
    let start = unpacked.len();
    unpacked.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut unpacked[start..]).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb";

    fn check(codec: Compression, packed: Vec<u8>) {
        assert_eq!(decompress(codec, Bytes::from(packed)).unwrap(), TEXT, "{codec:?}");
    }

    #[test]
    fn every_codec_is_unpacked() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(TEXT).unwrap();
        check(Compression::Gzip, gzip.finish().unwrap());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(TEXT).unwrap();
        check(Compression::Lz4, lz4.finish().unwrap());
        check(Compression::Zstd, zstd::encode_all(TEXT, 1).unwrap());
        let block = snap::raw::Encoder::new().compress_vec(TEXT).unwrap();
        check(Compression::Snappy, block.clone());
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        let header = [XERIAL_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        check(Compression::Snappy, [&header[..], &length, &block].concat());
    }

    #[test]
    fn nonsense_and_bombs_are_errors() {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            assert!(decompress(codec, Bytes::from_static(&[0x7f; 40])).is_err(), "{codec:?}");
        }
        let zeros = vec![0; MAX_BYTES + 1];
        let bomb = zstd::encode_all(&zeros[..], 1).unwrap();
        assert!(matches!(decompress(Compression::Zstd, bomb.into()), Err(DecompressError::TooLarge)));
    }
}
