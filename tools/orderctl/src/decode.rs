//! `orderctl decode`: values on stdin to JSON, one line each; `kcat -f '%R%s' … | orderctl decode`.
//!
//! A frame is a 4-byte big-endian length and the value; a null value is ff ff ff ff and nothing.

use std::io::{BufReader, BufWriter, Cursor, Read, Write, stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, bail};
use events::codec::Codec;
use serde_json::{Value, json};

use crate::cli::Decode;
use crate::decoded;
use crate::settings::Settings;

/// Larger than any record that a topic takes.
const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Length, magic byte and schema ID: what recognition looks at.
const PEEK_BYTES: u64 = 9;

pub(crate) async fn run(settings: &Settings, args: &Decode) -> anyhow::Result<ExitCode> {
    let codec = settings.registry()?.codec_without_memory().await.context("asking for the schemas")?;
    let (frames, raw) = (args.frames, args.raw);
    let work = move || {
        let input = BufReader::new(stdin().lock());
        decode(&codec, input, &mut BufWriter::new(stdout().lock()), frames, raw)
    };
    let bad = tokio::task::spawn_blocking(work).await.context("decoding")??;
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Decodes everything; returns how many values could not be decoded.
fn decode(codec: &Codec, mut input: impl Read, out: &mut impl Write, frames: bool, raw: bool) -> anyhow::Result<usize> {
    let mut head = Vec::new();
    input.by_ref().take(PEEK_BYTES).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(0);
    }
    let looks_framed = frames || (!raw && is_framed(codec, &head));
    let mut input = Cursor::new(head).chain(input);
    if looks_framed {
        return each_frame(codec, &mut input, out);
    }
    let mut whole = Vec::new();
    input.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut whole)?;
    if whole.len() > VALUE_BYTES_MAX {
        bail!("more than {VALUE_BYTES_MAX} bytes are no value; are these frames? give --frames");
    }
    print(codec, Some(&whole), out)
}

/// A frame shows a null's length, or a length, a magic byte behind it, and a known schema there; a raw value has its own
/// schema ID where a frame has its length.
fn is_framed(codec: &Codec, head: &[u8]) -> bool {
    let word = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let known = |id: Option<u32>| id.is_some_and(|id| codec.topic_of(id).is_some());
    if head.starts_with(&[0xff; 4]) {
        return true;
    }
    if head.get(4) == Some(&0) && known(word(5)) {
        return true;
    }
    // Neither is sure: without a known schema in the raw place the likelier one is a frame around foreign bytes.
    let length = word(0).map_or(usize::MAX, |length| length as usize);
    !known(word(1)) && length <= VALUE_BYTES_MAX && head.len() > 4
}

fn each_frame(codec: &Codec, input: &mut impl Read, out: &mut impl Write) -> anyhow::Result<usize> {
    let mut bad = 0;
    let mut number = 0;
    let mut length = [0; 4];
    loop {
        match input.read(&mut length[..1])? {
            0 => break,
            _ => input.read_exact(&mut length[1..]).context("the last frame's length is cut off")?,
        }
        number += 1;
        if length == [0xff; 4] {
            bad += print(codec, None, out)?;
            continue;
        }
        let size = u32::from_be_bytes(length) as usize;
        if size > VALUE_BYTES_MAX {
            bail!("frame {number} claims {size} bytes; is the input one value? give --raw");
        }
        let mut value = vec![0; size];
        input.read_exact(&mut value).with_context(|| format!("frame {number} is cut off"))?;
        bad += print(codec, Some(&value), out)?;
    }
    Ok(bad)
}

/// Prints one value and says whether (1) or not (0) it was bad.
fn print(codec: &Codec, value: Option<&[u8]>, out: &mut impl Write) -> anyhow::Result<usize> {
    let (json, bad) = match value.map(|bytes| (bytes, decoded::value(codec, bytes))) {
        None => (Value::Null, 0),
        Some((_, Ok(decoded))) => {
            let mut json = decoded.data;
            json["type"] = decoded.type_name.into();
            (json, 0)
        }
        Some((bytes, Err(error))) => (json!({ "error": error.to_string(), "value_hex": hex::encode(bytes) }), 1),
    };
    writeln!(out, "{json}")?;
    // Whoever follows a topic through a pipe sees each record at once.
    out.flush()?;
    Ok(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DelistProduct of product 7 by command 8, by the schema that `Codec::numbered` knows under its number.
    fn value(codec: &Codec) -> Vec<u8> {
        let command = events::inventory::DelistProduct {
            product_id: events::id::ProductId(7),
            command_id: events::id::CommandId(8),
            caller: None,
            key_hash: None,
            fingerprint: None,
        };
        events::inventory::InventoryCommand::from(command).encode(codec).unwrap()
    }

    fn frame(value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        [&length, value].concat()
    }

    fn lines(input: &[u8], frames: bool, raw: bool) -> anyhow::Result<(Vec<Value>, usize)> {
        let mut out = Vec::new();
        let bad = decode(&Codec::numbered(), input, &mut out, frames, raw)?;
        let text = String::from_utf8(out)?;
        Ok((text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), bad))
    }

    #[test]
    fn a_raw_value_is_recognised() {
        let (lines, bad) = lines(&value(&Codec::numbered()), false, false).unwrap();
        assert_eq!((lines.len(), bad), (1, 0));
        assert_eq!(lines[0]["type"], "orderlog.inventory.DelistProduct");
        assert_eq!(lines[0]["product_id"], "7");
    }

    #[test]
    fn frames_are_recognised_and_a_null_is_null() {
        let value = value(&Codec::numbered());
        let mut input = frame(&value);
        input.extend([0xff; 4]);
        input.extend(frame(b"no avro"));
        input.extend(frame(b""));
        input.extend(frame(&value));
        let (all, bad) = lines(&input, false, false).unwrap();
        assert_eq!((all.len(), bad), (5, 2));
        assert!(all[1].is_null());
        assert_eq!(all[2]["value_hex"], hex::encode("no avro"));
        assert_eq!(all[0], all[4]);
        let (nulls, bad) = lines(&[0xff; 8], false, false).unwrap();
        assert_eq!((nulls.len(), bad), (2, 0));
    }

    #[test]
    fn frames_that_begin_with_foreign_bytes_are_recognised() {
        let mut input = frame(b"plain text");
        input.extend(frame(&value(&Codec::numbered())));
        assert_eq!(lines(&input, false, false).unwrap().0.len(), 2);
    }

    #[test]
    fn a_cut_off_frame_is_an_error_and_a_flag_decides() {
        let input = frame(&value(&Codec::numbered()));
        assert!(lines(&input[..input.len() - 1], false, false).is_err());
        assert!(lines(&input[..2], true, false).is_err());
        let (one, bad) = lines(&input, false, true).unwrap();
        assert_eq!((one.len(), bad), (1, 1));
        assert_eq!(lines(b"", false, false).unwrap().0.len(), 0);
    }
}
