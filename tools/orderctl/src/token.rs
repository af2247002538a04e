//! `orderctl token`: signs a bearer token and prints nothing else, so that a shell can use it.
//!
//! What a token holds is edge's.

use std::process::ExitCode;

use edge::token::{Identity, Role, sign};

use crate::cli::{RoleName, Token};
use crate::output::Output;
use crate::settings::Settings;

pub(crate) fn run(settings: &Settings, out: Output, args: &Token) -> anyhow::Result<ExitCode> {
    let identity = Identity { subject: args.sub.clone(), role: args.role.into() };
    let token = sign(&settings.signing_key()?, &identity, args.ttl)?;
    out.show(&serde_json::json!({ "token": token }), |_| token.clone());
    Ok(ExitCode::SUCCESS)
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Customer => Self::Customer,
            RoleName::Operator => Self::Operator,
        }
    }
}
