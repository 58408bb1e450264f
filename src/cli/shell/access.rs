//! The commands on identities and access control lists.
//!
//! Runs on: the shell's thread.

use super::commands::{Call, Failure, Outcome};
use super::{err, nodes, out, print};
use crate::client::{Acl, Watch};

/// Silent: a server that refuses the identity ends the session.
pub fn add_auth(call: &Call<'_>) -> Outcome {
    call.client.add_auth(call.word(0), call.word(1).as_bytes());
    Ok(())
}

pub fn get_acl(call: &Call<'_>) -> Outcome {
    let (acl, stat) = call.client.get_acl(call.word(0)).wait()?;
    out(format_args!("{}", print::acl(&acl)));
    if call.given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

pub fn set_acl(call: &Call<'_>) -> Outcome {
    let version = call.number("v", -1)?;
    let acl = parse(call.word(1))?;
    let path = call.word(0);
    if call.given.has("R") {
        return nodes::visit(call.client, path, &Watch::No, |path| {
            if let Err(error) = call.client.set_acl(path, &acl, version).wait() {
                out(format_args!("{error}"));
            }
            Ok(())
        });
    }
    let stat = call.client.set_acl(path, &acl, version).wait()?;
    if call.given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

/// A list in the shell's form, with what is wrong or strange about it on stderr.
pub fn parse(text: &str) -> Result<Vec<Acl>, Failure> {
    match print::parse_acl(text) {
        Ok((list, notices)) => {
            for notice in notices {
                err(format_args!("{notice}\n"));
            }
            Ok(list)
        }
        Err(part) => {
            err(format_args!("{part} does not have the form scheme:id:perm\n"));
            Err(Failure::new("Acl is not valid : null"))
        }
    }
}
