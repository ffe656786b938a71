//! The begin of a rollout: who is in it, what becomes different there, and everything that speaks against it, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_bundle::{Bundle, BundleLimits};
use holm_core::{FunctionName, Manifest, Timestamp};
use holm_protocol::{DesiredFunction, Envelope, GroupName, RollbackPermit, ThingName};
use holm_trust::tuf::Repository;
use rusqlite::{Connection, params};

use super::super::desired::{self, Confirmed, Last};
use super::super::tokens::audit;
use super::super::{Records, Refused, signed, unsigned};
use super::super::{aliases, devices};
use super::change::Change;
use super::{RolloutId, event, load};
use crate::CloudError;
use crate::blobs::Blobs;
use crate::error::{chain, sql};
use crate::rollouts::{Plan, State, assign, usual_stages};

/// Whom it is for.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Group(GroupName),
    Devices(Vec<ThingName>),
}

/// What is wanted. A release is named by its version, and looked up.
pub(crate) struct Begin {
    pub(crate) function: FunctionName,
    /// With the bundle and sequence of a release to be filled in.
    pub(crate) wish: Wish,
    /// The stages are the usual ones if there are none.
    pub(crate) plan: Plan,
    pub(crate) target: Target,
    pub(crate) why: Option<String>,
    pub(crate) operator: String,
    /// Only tell what would be.
    pub(crate) preview: bool,
    pub(crate) now: Timestamp,
}

/// See [`Change`].
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    Release { version: String, permit: Option<Envelope> },
    Back,
    Config(BTreeMap<String, Option<String>>),
    Remove,
}

/// What there will be, or would be.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Preview {
    /// What becomes of the devices, by what they have now.
    pub(crate) changes: Vec<Step>,
    /// Devices by stage.
    pub(crate) stages: Vec<(String, usize)>,
    /// A permit of the targets keys has to come with it, for this bundle.
    pub(crate) permit: Option<holm_protocol::Artifact>,
}

/// What becomes of some devices.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Step {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) devices: Vec<String>,
}

impl Preview {
    /// Whether any device would have something else than it has.
    pub(in crate::records) fn differs(&self) -> bool {
        self.changes.iter().any(|step| step.from != step.to)
    }
}

/// How it began.
#[derive(Debug)]
pub(crate) struct Begun {
    /// None for a preview.
    pub(crate) id: Option<RolloutId>,
    pub(crate) preview: Preview,
}

/// A device that it is for.
struct Candidate {
    row: i64,
    thing: String,
    groups: Vec<String>,
}

impl Records {
    /// Begins a rollout, or says all that speaks against it.
    pub(crate) async fn begin_rollout(
        &self,
        begin: Begin,
        blobs: Arc<Blobs>,
    ) -> Result<Result<Begun, Refused>, CloudError> {
        self.write(move |connection| work(connection, begin, &blobs)).await
    }
}

fn work(connection: &Connection, begin: Begin, blobs: &Blobs) -> Result<Result<Begun, Refused>, CloudError> {
    let preview = begin.preview;
    let judged = match judge(connection, begin, next_number(connection)?, blobs)? {
        Ok(judged) => judged,
        Err(refused) => return Ok(Err(refused)),
    };
    let id = if preview { None } else { Some(judged.begin(connection)?) };
    Ok(Ok(Begun { id, preview: judged.preview }))
}

/// A rollout that nothing speaks against, and that has not begun.
pub(in crate::records) struct Judged {
    id: RolloutId,
    function: FunctionName,
    change: Change,
    plan: Plan,
    group: Option<String>,
    /// Rows of the devices, and the stage of each.
    members: Vec<(i64, usize)>,
    why: Option<String>,
    operator: String,
    now: Timestamp,
    pub(in crate::records) preview: Preview,
}

/// Holds a rollout that would get this number against everything that may speak against it. Changes nothing.
pub(in crate::records) fn judge(
    connection: &Connection,
    begin: Begin,
    id: RolloutId,
    blobs: &Blobs,
) -> Result<Result<Judged, Refused>, CloudError> {
    let Begin { function, wish, mut plan, target, why, operator, preview, now } = begin;
    let mut problems = Vec::new();
    let repository = match desired::releases(connection, now)? {
        Ok(repository) => Some(repository),
        Err(Refused::Conflict(sentence)) => {
            if matches!(wish, Wish::Release { .. }) {
                problems.push(sentence);
            }
            None
        }
        Err(refused) => return Ok(Err(refused)),
    };
    let wish = match wish {
        Wish::Release { version, permit } => match aliases::resolve(connection, &function, version)? {
            Ok(version) => Wish::Release { version, permit },
            Err(Refused::Conflict(sentence)) => return Ok(Err(Refused::NotBelieved(vec![sentence]))),
            Err(refused) => return Ok(Err(refused)),
        },
        wish => wish,
    };
    let change = change_of(&function, wish, repository.as_ref(), now, &mut problems);
    let candidates = candidates(connection, &target, &mut problems)?;
    if plan.stages.is_empty() {
        plan.stages = usual_stages(candidates.len());
    }
    problems.extend(plan.problems());
    problems.extend(busy(connection, &function, &candidates)?);
    let Some(change) = change.filter(|_| !candidates.is_empty()) else {
        return Ok(Err(Refused::NotBelieved(problems)));
    };
    let mut steps = Steps::new();
    let mut manifests = Manifests { blobs, known: BTreeMap::new() };
    let mut permit = None;
    for candidate in &candidates {
        let last = desired::last(connection, candidate.row)?;
        let confirmed = desired::confirmed(connection, candidate.row, &function, repository.as_ref())?;
        let from = last.function(&function).map(|function| shown(&change, function));
        let to = match &change {
            // Told, not refused: who asks what would be can make a permit.
            Change::Release { version, bundle, builds, sequence, permit: None }
                if preview && builds.is_empty() && !confirmed.admits(bundle, *sequence) =>
            {
                permit = Some(*bundle);
                Ok(Some(version.clone()))
            }
            change => wanted(change, &function, &last, &confirmed, &mut manifests)?
                .map(|wanted| wanted.map(|function| shown(change, &function))),
        };
        match to {
            Ok(to) => steps.entry((from, to)).or_default().push(candidate.thing.clone()),
            Err(problem) => problems.push(format!("{}: {problem}", candidate.thing)),
        }
    }
    if !problems.is_empty() {
        return Ok(Err(Refused::NotBelieved(problems)));
    }
    let named: Vec<(String, Vec<String>)> =
        candidates.iter().map(|candidate| (candidate.thing.clone(), candidate.groups.clone())).collect();
    let stages = assign(&id.to_string(), &plan.stages, &named);
    let size = |stage: usize| stages.iter().filter(|of| **of == stage).count();
    let shown = plan.stages.iter().enumerate().map(|(stage, select)| (select.to_string(), size(stage))).collect();
    let changes = steps.into_iter().map(|((from, to), devices)| Step { from, to, devices }).collect();
    let preview = Preview { changes, stages: shown, permit };
    let group = match &target {
        Target::Group(group) => Some(group.to_string()),
        Target::Devices(_) => None,
    };
    let members = candidates.iter().map(|candidate| candidate.row).zip(stages).collect();
    Ok(Ok(Judged { id, function, change, plan, group, members, why, operator, now, preview }))
}

impl Judged {
    /// Begins it. In the transaction that it was judged in.
    pub(in crate::records) fn begin(&self, connection: &Connection) -> Result<RolloutId, CloudError> {
        let Self { id, function, change, plan, group, members, why, operator, now, .. } = self;
        let json = |value: Result<String, serde_json::Error>| {
            value.map_err(|error| CloudError::Row { what: "rollout", problem: error.to_string() })
        };
        let statement = "INSERT INTO rollout (number, function, change, plan, \"group\", operator, why, made, state, stage, updated) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?8)";
        let values = params![
            signed(id.0),
            function.as_str(),
            json(serde_json::to_string(change))?,
            json(serde_json::to_string(plan))?,
            group,
            operator,
            why,
            now.0,
            State::Running.as_str()
        ];
        connection.execute(statement, values).map_err(sql("begin a rollout"))?;
        for (row, stage) in members {
            let statement = "INSERT INTO rollout_device (rollout, device, stage, state, updated) \
                             VALUES (?1, ?2, ?3, 'waiting', ?4)";
            let mut statement = connection.prepare_cached(statement).map_err(sql("begin a rollout"))?;
            let stage = i64::try_from(*stage).unwrap_or(i64::MAX);
            statement.execute(params![signed(id.0), row, stage, now.0]).map_err(sql("begin a rollout"))?;
        }
        let words = change.words();
        event(connection, *id, &format!("begun by {operator}: {function} {words}, {} devices", members.len()), *now)?;
        audit(connection, *now, operator, "begin a rollout", &format!("{id} {function} {words}"))?;
        Ok(*id)
    }
}

/// What is wanted, with what the repository says of it.
fn change_of(
    function: &FunctionName,
    wish: Wish,
    repository: Option<&Repository>,
    now: Timestamp,
    problems: &mut Vec<String>,
) -> Option<Change> {
    match wish {
        Wish::Back => Some(Change::Back),
        Wish::Config(values) => Some(Change::Config { values }),
        Wish::Remove => Some(Change::Remove),
        Wish::Release { version, permit } => {
            let repository = repository?;
            let Some((bundle, sequence)) = desired::release(repository, function, &version) else {
                problems.push(desired::not_published(repository, function, &version));
                return None;
            };
            if let Some(envelope) = &permit
                && let Err(problem) = check_permit(envelope, repository, function, &bundle, now)
            {
                problems.push(format!("`permit`: {problem}"));
            }
            let builds = desired::builds_of(repository, function, &version);
            Some(Change::Release { version, bundle, builds, sequence, permit })
        }
    }
}

/// As devices will check it, where somebody can do something about it.
fn check_permit(
    envelope: &Envelope,
    repository: &Repository,
    function: &FunctionName,
    bundle: &holm_protocol::Artifact,
    now: Timestamp,
) -> Result<(), String> {
    let role = repository.targets_role().map_err(|error| chain(&error))?;
    role.verify(envelope).map_err(|error| chain(&error))?;
    let permit = RollbackPermit::read(envelope).map_err(|error| chain(&error))?;
    if permit.function != *function || permit.bundle != *bundle {
        return Err("it is for another release".to_owned());
    }
    if permit.expires <= now { Err("it has expired".to_owned()) } else { Ok(()) }
}

fn candidates(
    connection: &Connection,
    target: &Target,
    problems: &mut Vec<String>,
) -> Result<Vec<Candidate>, CloudError> {
    let mut found = Vec::new();
    match target {
        Target::Group(group) => {
            let action = "read a group";
            let statement = "SELECT d.id, d.name FROM membership m JOIN device d ON d.id = m.device \
                             WHERE m.\"group\" = ?1 AND d.status = 'active' ORDER BY d.name";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement
                .query_map([group.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
                .map_err(sql(action))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(sql(action))?;
            for (row, thing) in rows {
                found.push(Candidate { row, thing, groups: devices::groups(connection, row)? });
            }
            if found.is_empty() {
                problems.push(format!("`group`: no active device is in {group}"));
            }
        }
        Target::Devices(things) => {
            for thing in things {
                match desired::active(connection, thing)? {
                    Ok(row) => found.push(Candidate {
                        row,
                        thing: thing.to_string(),
                        groups: devices::groups(connection, row)?,
                    }),
                    Err(Refused::Conflict(sentence)) => problems.push(sentence),
                    Err(_) => problems.push(format!("there is no device {thing}")),
                }
            }
        }
    }
    Ok(found)
}

/// The rollout that does already what would begin: the same version to the same group, in the same way, and it has not ended.
pub(in crate::records) fn underway(connection: &Connection, begin: &Begin) -> Result<Option<RolloutId>, CloudError> {
    let (Wish::Release { version, .. }, Target::Group(group)) = (&begin.wish, &begin.target) else { return Ok(None) };
    let Ok(wanted) = aliases::resolve(connection, &begin.function, version.clone())? else { return Ok(None) };
    let action = "read the rollouts";
    let statement =
        "SELECT number FROM rollout WHERE function = ?1 AND \"group\" = ?2 AND state IN ('running', 'paused')";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map(params![begin.function.as_str(), group.as_str()], |row| row.get(0));
    let numbers: Vec<i64> = rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))?;
    for number in numbers {
        let Some(rollout) = load(connection, RolloutId(unsigned(number)))? else { continue };
        let plan = match begin.plan.stages.is_empty() {
            // The usual ones depend on how many there were.
            true => Plan { stages: rollout.plan.stages.clone(), ..begin.plan.clone() },
            false => begin.plan.clone(),
        };
        if plan == rollout.plan && matches!(rollout.change, Change::Release { version, .. } if version == wanted) {
            return Ok(Some(rollout.id));
        }
    }
    Ok(None)
}

/// Other rollouts of the function that have some of these devices.
fn busy(connection: &Connection, function: &FunctionName, candidates: &[Candidate]) -> Result<Vec<String>, CloudError> {
    let action = "read the rollouts";
    let statement = "SELECT r.number, d.device FROM rollout r JOIN rollout_device d ON d.rollout = r.number \
                     WHERE r.function = ?1 AND r.state IN ('running', 'paused', 'aborting') ORDER BY r.number";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement
        .query_map([function.as_str()], |row| Ok((unsigned(row.get(0)?), row.get::<_, i64>(1)?)))
        .map_err(sql(action))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(sql(action))?;
    let mut common: BTreeMap<u64, usize> = BTreeMap::new();
    for (number, _) in rows.iter().filter(|(_, row)| candidates.iter().any(|candidate| candidate.row == *row)) {
        *common.entry(*number).or_default() += 1;
    }
    let sentence = |(number, count): (u64, usize)| {
        let id = RolloutId(number);
        format!("{id} has {count} of these devices and {function}, and has not ended: `holm rollout abort {id}`")
    };
    Ok(common.into_iter().map(sentence).collect())
}

/// What a device would run, with its configuration held against the manifest.
fn wanted(
    change: &Change,
    function: &FunctionName,
    last: &Last,
    confirmed: &Confirmed,
    manifests: &mut Manifests<'_>,
) -> Result<Result<Option<DesiredFunction>, String>, CloudError> {
    let wanted = match change.wanted(function, last, confirmed) {
        Ok(wanted) => wanted,
        Err(problem) => return Ok(Err(problem)),
    };
    let Some(function) = wanted.as_ref().filter(|function| !function.config.is_empty()) else { return Ok(Ok(wanted)) };
    // A bundle that is not here is the devices' to judge: they have it, or will not get it.
    let Some(manifest) = manifests.of(&function.bundle.sha256)? else { return Ok(Ok(wanted)) };
    let mut problems = Vec::new();
    for (name, value) in &function.config {
        match manifest.config.iter().find(|(known, _)| **known == **name) {
            Some((_, parameter)) => {
                problems.extend(parameter.check(value).err().map(|problem| format!("{name}: {problem}")));
            }
            None => {
                let known: Vec<&str> = manifest.config.iter().map(|(name, _)| &**name).collect();
                let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                problems.push(format!(
                    "{name}: {} {} has no such parameter; there is {there}",
                    function.name, function.version
                ));
            }
        }
    }
    Ok(if problems.is_empty() { Ok(wanted) } else { Err(problems.join("; ")) })
}

/// Manifests of bundles, each read once.
struct Manifests<'a> {
    blobs: &'a Blobs,
    known: BTreeMap<holm_bundle::Digest, Option<Manifest>>,
}

impl Manifests<'_> {
    fn of(&mut self, bundle: &holm_bundle::Digest) -> Result<Option<&Manifest>, CloudError> {
        if !self.known.contains_key(bundle) {
            let bytes = self.blobs.read(bundle)?;
            let opened = bytes.and_then(|bytes| Bundle::open(&bytes, &BundleLimits::default()).ok());
            self.known.insert(*bundle, opened.map(|bundle| bundle.manifest));
        }
        Ok(self.known.get(bundle).and_then(Option::as_ref))
    }
}

/// What changes for some devices: from, to, and whose.
type Steps = BTreeMap<(Option<String>, Option<String>), Vec<String>>;

/// As it is shown what becomes different.
fn shown(change: &Change, function: &DesiredFunction) -> String {
    if !matches!(change, Change::Config { .. }) {
        return function.version.clone();
    }
    let pairs: Vec<String> = function.config.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let pairs = if pairs.is_empty() { "the defaults".to_owned() } else { pairs.join(" ") };
    format!("{} with {pairs}", function.version)
}

/// The number of the next rollout.
pub(in crate::records) fn next_number(connection: &Connection) -> Result<RolloutId, CloudError> {
    let statement = "SELECT coalesce(max(number), 0) + 1 FROM rollout";
    let number = connection.query_row(statement, [], |row| row.get(0)).map_err(sql("begin a rollout"))?;
    Ok(RolloutId(unsigned(number)))
}
