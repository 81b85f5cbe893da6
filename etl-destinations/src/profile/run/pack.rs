//! How is a batch's body wrapped? Compressed, in an archive, or as a file among the fields of a form.

use std::io::Write;

use bytes::Bytes;
use etl::error::{ErrorKind, EtlResult, ResultExt};
use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

use super::super::shape::{Compress, Pack};
use super::super::template::{Values, Within};
use super::wire::pairs;
use crate::http::HttpRequest;

/// Puts the body into the request.
pub(super) fn put(request: &mut HttpRequest, pack: &Pack, values: &Values, body: &[u8]) -> EtlResult<()> {
    let name = pack.file_name.fill(values, Within::Text)?;
    let content = match pack.compress {
        Compress::None => body.to_vec(),
        Compress::Gzip => gzip(body)?,
        Compress::Zip => zip(&name, body)?,
    };
    let Some((file, fields)) = &pack.multipart else {
        if pack.compress == Compress::Gzip {
            request.headers.push(("content-encoding".to_owned(), etl::Secret::new("gzip")));
        }
        request.content_type = Some(pack.content_type.clone());
        request.body[1] = Bytes::from(content);
        return Ok(());
    };
    let fields = pairs(fields, values)?;
    let boundary = boundary(&content, &fields);
    let mut before = String::new();
    for (name, value) in fields {
        before += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    before += &format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{file}\"; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
        name.replace(['"', '\r', '\n'], "_"),
        pack.content_type
    );
    request.content_type = Some(format!("multipart/form-data; boundary={boundary}"));
    request.body = [Bytes::from(before), Bytes::from(content), Bytes::from(format!("\r\n--{boundary}--\r\n"))];
    Ok(())
}

/// What is nowhere in the content, and the same each time it is sent.
fn boundary(content: &[u8], fields: &[(String, String)]) -> String {
    let is_in = |boundary: &str| {
        let needle = boundary.as_bytes();
        content.windows(needle.len()).any(|part| part == needle)
            || fields.iter().any(|(_, value)| value.contains(boundary))
    };
    let mut boundary = "etl-7f3a9c51d2".to_owned();
    while is_in(&boundary) {
        boundary.push('x');
    }
    boundary
}

fn gzip(body: &[u8]) -> EtlResult<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    let packed = out.write_all(body).and_then(|()| out.finish());
    packed.or_etl(ErrorKind::Internal, "compress a batch")
}

/// An archive with one file, as PKWARE's note has it. Without a time, so that the same rows make the same archive.
fn zip(name: &str, body: &[u8]) -> EtlResult<Vec<u8>> {
    let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
    let packed = packed.write_all(body).and_then(|()| packed.finish());
    let packed = packed.or_etl(ErrorKind::Internal, "compress a batch")?;
    let mut crc = Crc::new();
    crc.update(body);
    let length = |length: usize| u32::try_from(length).or_etl(ErrorKind::Value, "pack a batch of more than 4 GiB");
    // Version, flags (names are UTF-8), deflate, no time, the first day there is, checksum, lengths, the name's length.
    let mut about = vec![20, 0, 0, 8, 8, 0, 0, 0, 0x21, 0];
    for number in [crc.sum(), length(packed.len())?, length(body.len())?] {
        about.extend_from_slice(&number.to_le_bytes());
    }
    about.extend_from_slice(&u16::try_from(name.len()).or_etl(ErrorKind::Config, "name a file")?.to_le_bytes());
    about.extend_from_slice(&[0, 0]);
    let mut out = b"PK\x03\x04".to_vec();
    for part in [about.as_slice(), name.as_bytes(), &packed] {
        out.extend_from_slice(part);
    }
    let directory = length(out.len())?;
    out.extend_from_slice(b"PK\x01\x02\x14\x00");
    out.extend_from_slice(&about);
    // No comment, one disk, no attributes, and the file begins at the beginning.
    out.extend_from_slice(&[0; 14]);
    out.extend_from_slice(name.as_bytes());
    let end = length(out.len())?;
    out.extend_from_slice(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    out.extend_from_slice(&(end - directory).to_le_bytes());
    out.extend_from_slice(&directory.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    Ok(out)
}
