//! Whole frames: length prefix, header, body.
//!
//! Owns the order of the three and the check that a body ends where its frame ends. Reading a frame's length from
//! a connection, and limiting it, is the connection's business: the decoders here start after the prefix.

use bytes::Bytes;

use crate::{
    ApiKey, Chunk, DecodeError, Decoder, EncodeError, Encoder, Message, Request, RequestHeader,
    ResponseHeader,
};

/// Reads the body of a request, which must fill the rest of the frame.
pub fn decode_request<R: Request>(d: &mut Decoder, version: i16) -> Result<R, DecodeError> {
    let request = R::decode(d, version)?;
    d.finish()?;
    Ok(request)
}

/// Writes a request as a frame with its length prefix.
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    request: &R,
) -> Result<Vec<Chunk>, EncodeError> {
    let header = RequestHeader {
        api_key: R::API_KEY,
        api_version: version,
        correlation_id,
        client_id: client_id.map(str::to_owned),
        unknown_tagged_fields: Vec::new(),
    };
    let mut e = Encoder::new();
    e.begin_frame();
    header.encode(&mut e)?;
    request.encode(&mut e, version)?;
    e.end_frame()?;
    Ok(e.finish())
}

/// Writes a response as a frame with its length prefix. `R` is the request it answers, in `version`.
pub fn encode_response<R: Request>(
    version: i16,
    correlation_id: i32,
    response: &R::Response,
) -> Result<Vec<Chunk>, EncodeError> {
    let mut e = Encoder::new();
    e.begin_frame();
    let header = ResponseHeader { correlation_id, unknown_tagged_fields: Vec::new() };
    header.encode(&mut e, R::API_KEY, version)?;
    response.encode(&mut e, version)?;
    e.end_frame()?;
    Ok(e.finish())
}

/// Reads a response frame without its length prefix: the correlation id and the body.
pub fn decode_response<R: Request>(version: i16, frame: Bytes) -> Result<(i32, R::Response), DecodeError> {
    let api_key: ApiKey = R::API_KEY;
    let mut d = Decoder::new(frame);
    let header = ResponseHeader::decode(&mut d, api_key, version)?;
    let response = R::Response::decode(&mut d, version)?;
    d.finish()?;
    Ok((header.correlation_id, response))
}
