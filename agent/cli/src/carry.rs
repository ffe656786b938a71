//! Deployments that are carried to a device: `holm device export` writes one to a folder, and `holm deploy --from` hands that to the
//! node there.
//!
//! The folder has the device's job as the control plane would hand it over, the repository's metadata and the files that the job names.
//! All of it is signed, and judged by the device; this end checks it as well, so that a stick that does not do is noticed at the desk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_protocol::{DesiredState, Envelope, NextJob, Phase, ReasonCode};
use holm_trust::tuf::{Answer, DEPLOYMENT_KEYS, Kept, Limits, Repository, RoleName, Update};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::{Client, escape};
use crate::deploy::ROLLED_BACK;
use crate::failure::Failure;
use crate::http::{Got, below};
use crate::look;
use crate::release::{End, POLL, look_at};
use crate::remote::Remote;
use crate::screen::Screen;
use crate::tuf::{PATIENCE, is_same, now, readable, refused, save};

/// `holm device export`.
pub(crate) async fn export(
    remote: &Remote,
    device: &str,
    folder: &Path,
    as_json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let job = remote.bytes(&format!("/v1/devices/{}/next", escape(device))).await?;
    let state = state(device, &job)?;
    let (repository, expires) = metadata(remote, &folder.join("metadata")).await?;
    let names = names(&repository, &state);
    let (mut files, mut bytes) = (0_u64, 0_u64);
    for name in &names {
        let wrong = |error| refused(name, &error);
        let (target, path) = (repository.target(name, now()).map_err(wrong)?, repository.path(name).map_err(wrong)?);
        let file = folder.join("targets").join(&path);
        make(file.parent().unwrap_or(folder))?;
        if !is_same(&file, name, target) {
            save(remote.http(), &below(&format!("{}/tuf/targets/", remote.url()), &path), name, target, &file).await?;
        }
        (files, bytes) = (files + 1, bytes + target.length);
    }
    // Last, so that a folder that is not complete has no deployment in it.
    write(&folder.join("devices").join(format!("{device}.json")), &job)?;
    let until = expires.map_or(state.expires, |expires| expires.min(state.expires));
    if as_json {
        return screen.json(&json!({
            "thing": device, "folder": folder, "generation": state.generation, "files": files, "bytes": bytes,
            "good_until": until.0,
        }));
    }
    let (folder, size) = (folder.display(), look::bytes(bytes));
    screen.line(format_args!(
        "exported   generation {} for {device}: {files} files, {size}, in {folder}",
        state.generation
    ))?;
    let until = screen.look.moment(until.0);
    screen.note(format_args!("good until {until}; on the device, run"));
    screen.note(format_args!("  holm deploy --from {folder}"));
    Ok(())
}

/// What the device shall run.
fn state(device: &str, job: &[u8]) -> Result<DesiredState, Failure> {
    let wrong = |what: String| Failure::new(format!("the job of {device} is not understood: {what}"));
    let next = NextJob::read(job).map_err(|error| wrong(error.to_string()))?;
    let Some(execution) = next.execution else {
        return Err(Failure::new(format!("there is nothing to do for {device}: its last deployment is over"))
            .next(format!("holm deploy FUNCTION@VERSION --device {device}, and then this again")));
    };
    let document = execution.job_document.ok_or_else(|| wrong("it has no document".to_owned()))?;
    let text = document.text().map_err(|error| wrong(error.to_string()))?;
    let envelope = Envelope::read(&text).map_err(|error| wrong(error.to_string()))?;
    DesiredState::read(&envelope).map_err(|error| wrong(error.to_string()))
}

/// Writes the repository's metadata to a folder, each root of it too: nobody knows which one the device has. Answers until when it is
/// good.
async fn metadata(remote: &Remote, folder: &Path) -> Result<(Repository, Option<Timestamp>), Failure> {
    let url = format!("{}/tuf/metadata/", remote.url());
    let limits = Limits::default();
    let first = "1.root.json";
    let (got, root) = remote.http().bytes(&below(&url, first), limits.root, PATIENCE).await?;
    if got != Got::All {
        return Err(
            Failure::new("the control plane has no repository yet").next("begin one with `holm key new --cloud`")
        );
    }
    make(folder)?;
    write(&folder.join(first), &root)?;
    let mut update = Update::new(Kept::new(root), now(), limits).map_err(|error| refused(&url, &error))?;
    while let Some(wanted) = update.wanted() {
        let (got, bytes) = remote.http().bytes(&below(&url, &wanted.name), wanted.max_bytes, PATIENCE).await?;
        if got == Got::All {
            write(&folder.join(&wanted.name), &bytes)?;
        }
        let answer = match got {
            Got::All => Answer::Found(bytes),
            Got::Missing => Answer::Missing,
            Got::TooLong => Answer::TooLong,
        };
        update.take(answer).map_err(|error| refused(&url, &error))?;
    }
    let repository = update.finish().map_err(|error| refused(&url, &error))?;
    let expires = RoleName::ALL.into_iter().filter_map(|role| repository.expires(role)).min();
    Ok((repository, expires))
}

/// The targets that a desired state is made of. Native code for all engines: a node may have another one than it last said.
fn names(repository: &Repository, state: &DesiredState) -> BTreeSet<String> {
    let agent = state.agent.as_ref().map(|agent| agent.artifact.sha256);
    let wanted: BTreeSet<Digest> = state.functions.iter().map(|function| function.bundle.sha256).chain(agent).collect();
    let folders: Vec<String> =
        state.functions.iter().map(|function| format!("functions/{}/{}/", function.name, function.version)).collect();
    let belongs = |name: &str, digest: Option<Digest>| {
        name == DEPLOYMENT_KEYS
            || digest.is_some_and(|digest| wanted.contains(&digest))
            || folders.iter().any(|folder| name.starts_with(folder))
    };
    let targets = repository.targets().filter(|(name, target)| belongs(name, target.sha256()));
    targets.map(|(name, _)| name.to_owned()).collect()
}

/// `holm deploy --from`.
pub(crate) async fn deploy(
    client: &Client,
    folder: &Path,
    as_json: bool,
    screen: &mut Screen,
) -> Result<ExitCode, Failure> {
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::new(format!("cannot find {}: {error}", folder.display())))?;
    let answer = client.carry(&folder.to_string_lossy()).await.map_err(|failure| {
        failure.next("what is good for this device is written by `holm device export NAME FOLDER` at the desk")
    })?;
    let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or_default();
    if !as_json {
        screen.line(format_args!("accepted   generation {generation}"))?;
    }
    let mut told = String::new();
    loop {
        let status = client.get("/v1/status").await?;
        let cloud = status.get("cloud").cloned().unwrap_or_default();
        let newer = cloud.get("generation").and_then(Value::as_u64).unwrap_or_default();
        if newer != generation {
            return Err(Failure::new(format!("generation {newer} took its place"))
                .next("see what runs with `holm functions list`"));
        }
        let job = job(&cloud);
        let (line, end) = look_at(&job, &screen.look);
        if line != told {
            match as_json {
                true => screen.json(&job)?,
                false => screen.line(&line)?,
            }
            told = line;
        }
        match end {
            Some(End::Confirmed) => return Ok(ExitCode::SUCCESS),
            Some(End::RolledBack) => return Ok(ExitCode::from(ROLLED_BACK)),
            Some(End::Failed) => return Ok(ExitCode::FAILURE),
            None => sleep(POLL).await,
        }
    }
}

/// What a node says of its deployment, as the control plane would say it.
fn job(cloud: &Value) -> Value {
    let text = |name: &str| cloud.get(name).and_then(Value::as_str).unwrap_or_default();
    let phase = Phase::parse(text("phase"));
    let status = match text("reason") {
        reason if phase == Phase::Refused && ReasonCode::parse(reason).is_retryable() => {
            holm_protocol::JobStatus::Failed
        }
        _ => phase.job_status(),
    };
    json!({
        "status": status.as_str(), "generation": cloud.get("generation"),
        "details": { "phase": text("phase"), "reason": text("reason"), "message": text("message") },
    })
}

fn make(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))
}

/// Whole or not at all, and on the disk when this returns: sticks are pulled out.
fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make(folder)?;
    let whole = || {
        let mut file = readable(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok::<(), std::io::Error>(())
    };
    whole().map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
