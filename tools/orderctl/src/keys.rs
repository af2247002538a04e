//! `orderctl keys`: makes the Ed25519 pair that signs and verifies tokens, for machines without openssl.
//!
//! Existing keys are kept: tokens in use would stop being valid.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cli::Keys;
use crate::output::Output;

/// SubjectPublicKeyInfo of an Ed25519 key, up to its 32 bytes (RFC 8410 §4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PEM_COLUMNS: usize = 64;

pub(crate) fn run(out: Output, args: &Keys) -> anyhow::Result<ExitCode> {
    let (signing, verifying) = (args.dir.join("signing.pem"), args.dir.join("verify.pem"));
    let made = !(signing.exists() && verifying.exists());
    if made {
        let (private, public) = pair()?;
        fs::create_dir_all(&args.dir).with_context(|| format!("making {}", args.dir.display()))?;
        write(&verifying, &public, 0o644)?;
        write(&signing, &private, 0o600)?;
    }
    let report = serde_json::json!({ "made": made, "signing": signing, "verifying": verifying });
    out.show(&report, |_| format!("{} {}", if made { "made" } else { "kept" }, signing.display()));
    Ok(ExitCode::SUCCESS)
}

/// A new key pair as PEM: PKCS#8 and SubjectPublicKeyInfo.
fn pair() -> anyhow::Result<(String, String)> {
    let key = Ed25519KeyPair::generate().map_err(|_| anyhow::anyhow!("no key can be made"))?;
    let private = key.to_pkcs8v1().map_err(|_| anyhow::anyhow!("no key can be made"))?;
    let public = [PUBLIC_PREFIX.as_slice(), key.public_key().as_ref()].concat();
    Ok((pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", &public)))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(PEM_COLUMNS).map(|start| &text[start..text.len().min(start + PEM_COLUMNS)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Written beside and moved, so that a reader never sees half a key. `mode` as in chmod.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let doing = || format!("writing {}", path.display());
    let new = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new).with_context(doing)?;
    file.write_all(text.as_bytes()).with_context(doing)?;
    fs::rename(&new, path).with_context(doing)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edge::token::{Identity, Keys, Role, sign};

    use super::*;

    #[test]
    fn what_one_key_signs_the_other_verifies() {
        let (private, public) = pair().unwrap();
        let identity = Identity { subject: "ann".to_owned(), role: Role::Customer };
        let token = sign(&private, &identity, Duration::from_secs(60)).unwrap();
        let keys: Keys = public.parse().unwrap();
        assert_eq!(keys.verify(&token).unwrap(), identity);
    }
}
