//! The four codecs of a batch's records, as Kafka frames them: KIP-110 for zstd; snappy in the xerial framing of Java
//! clients and of KafkaJS, or bare.
//!
//! Owns unpacking and packing. Invariant: what comes out is bounded, so that a small batch cannot fill the memory. A batch
//! that is appended is unpacked piece by piece, to be looked at (`check`); it is stored as it came unless the topic wants
//! another codec.

use std::io::{self, BufRead, BufReader, Read, Write};

use bytes::{Buf, BufMut, Bytes};

use super::Compression;

/// The most that a batch may hold once it is unpacked.
pub const MAX_UNPACKED_BYTES: usize = 128 * 1024 * 1024;

/// The xerial framing begins with this, then two version numbers.
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;

/// What Java clients put into one block of the xerial framing.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Where an LZ4 frame's flags stand, behind its magic number.
const LZ4_FLAGS_AT: usize = 4;
const LZ4_INDEPENDENT_BLOCKS: u8 = 1 << 5;
const LZ4_CONTENT_CHECKSUM: u8 = 1 << 2;
/// In the place of a block's length, behind the last one.
const LZ4_END_MARK: [u8; 4] = [0; 4];

/// Why a batch's records could not be unpacked or packed.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what the codec makes.
    #[error("{codec:?}: {source}")]
    Io {
        /// The codec.
        codec: Compression,
        /// What it said.
        source: io::Error,
    },
    /// More than [`MAX_UNPACKED_BYTES`].
    #[error("more than {MAX_UNPACKED_BYTES} bytes once unpacked")]
    TooLarge,
}

/// Unpacks a batch's records.
pub fn decompress(codec: Compression, payload: Bytes) -> Result<Bytes, CodecError> {
    let unpacked = match codec {
        Compression::None => return Ok(payload),
        Compression::Gzip => read_bounded(codec, gzip(&payload))?,
        Compression::Lz4 => read_bounded(codec, lz4(&payload))?,
        Compression::Zstd => read_bounded(codec, zstd(&payload)?)?,
        Compression::Snappy => unpack_snappy(&payload)?,
    };
    Ok(Bytes::from(unpacked))
}

fn read_bounded(codec: Compression, decoder: impl Read) -> Result<Vec<u8>, CodecError> {
    let mut unpacked = Vec::new();
    let limit = MAX_UNPACKED_BYTES as u64 + 1;
    decoder.take(limit).read_to_end(&mut unpacked).map_err(|source| CodecError::Io { codec, source })?;
    if unpacked.len() > MAX_UNPACKED_BYTES { Err(CodecError::TooLarge) } else { Ok(unpacked) }
}

/// What a gzip payload unpacks to, piece by piece.
pub(super) fn gzip(payload: &[u8]) -> impl BufRead {
    BufReader::new(flate2::bufread::MultiGzDecoder::new(payload))
}

/// What an LZ4 frame unpacks to, block by block.
pub(super) fn lz4(payload: &[u8]) -> impl BufRead {
    lz4_flex::frame::FrameDecoder::new(payload)
}

/// What Kafka's readers ask of an LZ4 frame, and the decoder here does not: independent blocks, and an end.
pub(super) fn check_lz4_frame(payload: &[u8]) -> Result<(), CodecError> {
    let wrong = |what: &str| {
        let source = io::Error::new(io::ErrorKind::InvalidData, what);
        Err(CodecError::Io { codec: Compression::Lz4, source })
    };
    let flags = payload.get(LZ4_FLAGS_AT).copied().unwrap_or_default();
    if flags & LZ4_INDEPENDENT_BLOCKS == 0 {
        return wrong("expected a frame of blocks that do not depend on each other");
    }
    let behind = if flags & LZ4_CONTENT_CHECKSUM == 0 { 0 } else { size_of::<u32>() };
    let up_to_end = payload.len().checked_sub(behind).map(|end| &payload[..end]);
    if up_to_end.is_some_and(|frame| frame.ends_with(&LZ4_END_MARK)) {
        Ok(())
    } else {
        wrong("the frame has no end mark")
    }
}

/// What a Zstandard payload unpacks to, piece by piece.
pub(super) fn zstd(payload: &[u8]) -> Result<impl BufRead, CodecError> {
    let failed = |source| CodecError::Io { codec: Compression::Zstd, source };
    Ok(BufReader::new(zstd::Decoder::with_buffer(payload).map_err(failed)?))
}

pub(super) fn unpack_snappy(payload: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut unpacked = Vec::new();
    if !payload.starts_with(XERIAL_MAGIC) {
        unpack_block(payload, &mut unpacked)?;
        return Ok(unpacked);
    }
    let mut rest = &payload[XERIAL_HEADER_BYTES.min(payload.len())..];
    while rest.len() >= size_of::<u32>() {
        let length = rest.get_u32() as usize;
        let Some((block, behind)) = rest.split_at_checked(length) else {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(CodecError::Io { codec: Compression::Snappy, source });
        };
        unpack_block(block, &mut unpacked)?;
        rest = behind;
    }
    Ok(unpacked)
}

fn unpack_block(block: &[u8], unpacked: &mut Vec<u8>) -> Result<(), CodecError> {
    let failed = |error: snap::Error| CodecError::Io { codec: Compression::Snappy, source: error.into() };
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if unpacked.len() + length > MAX_UNPACKED_BYTES {
        return Err(CodecError::TooLarge);
    }
    let start = unpacked.len();
    unpacked.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut unpacked[start..]).map_err(failed)?;
    Ok(())
}

/// Packs a batch's records, at the codec's default level.
pub fn compress(codec: Compression, records: Bytes) -> Result<Bytes, CodecError> {
    let failed = |source| CodecError::Io { codec, source };
    let packed = match codec {
        Compression::None => return Ok(records),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&records).and_then(|()| encoder.finish()).map_err(failed)?
        }
        Compression::Lz4 => {
            // Kafka's readers want independent blocks of at most 64 KiB.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&records).map_err(failed)?;
            encoder.finish().map_err(|error| failed(io::Error::other(error)))?
        }
        Compression::Zstd => {
            zstd::encode_all(&records[..], zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?
        }
        Compression::Snappy => pack_snappy(&records).map_err(|error| failed(error.into()))?,
    };
    Ok(packed.into())
}

fn pack_snappy(records: &[u8]) -> Result<Vec<u8>, snap::Error> {
    let mut packed = Vec::from(XERIAL_MAGIC);
    // The version that writes, and the oldest that reads.
    packed.put_u32(1);
    packed.put_u32(1);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(block)?;
        packed.put_u32(block.len() as u32);
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
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
        let zeros = vec![0; MAX_UNPACKED_BYTES + 1];
        let bomb = zstd::encode_all(&zeros[..], 1).unwrap();
        assert!(matches!(decompress(Compression::Zstd, bomb.into()), Err(CodecError::TooLarge)));
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|number| (number / 7).to_be_bytes()).collect();
        let text = Bytes::from(text);
        for codec in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let packed = compress(codec, text.clone()).unwrap();
            assert!(codec == Compression::None || packed.len() < text.len(), "{codec:?}");
            assert_eq!(decompress(codec, packed).unwrap(), text, "{codec:?}");
        }
    }
}
