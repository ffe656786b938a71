//! What devices shall do: AWS IoT Jobs, with a queue of one.
//!
//! A job is the whole desired state of its device, so only the latest one counts: a new one cancels the one before, wherever
//! that was. The generation of the desired state is its place in the queue; a job with a lower one is never put in, because the
//! device would refuse it.

use holm_core::Timestamp;
use holm_protocol::{
    GetJob, GotJob, JobDocument, JobErrorCode, JobExecution, JobExecutionState, JobId, JobRejected, JobStatus,
    JobTarget, NextJob, Party, StatusDetails, ThingName, UpdateJob, UpdatedJob, WireTime,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::devices::{self, DeviceStatus};
use super::tokens::audit;
use super::{Records, Refused, signed, unsigned};
use crate::CloudError;
use crate::error::sql;

/// Jobs of a device that are kept, for those who ask how the last ones went.
const KEPT: u64 = 20;

/// A job to be put in.
#[derive(Debug, Clone)]
pub(crate) struct PutJob {
    pub(crate) thing: ThingName,
    pub(crate) generation: u64,
    pub(crate) id: JobId,
    /// The envelope.
    pub(crate) document: String,
    pub(crate) operator: String,
    pub(crate) now: Timestamp,
}

/// What a device is answered, and whether its next job is another one than before.
#[derive(Debug)]
pub(crate) enum JobAnswer {
    Got(GotJob),
    Updated { answer: UpdatedJob, next: Option<NextJob> },
    Rejected(JobRejected),
}

/// A row.
#[derive(Debug, Clone)]
struct Job {
    generation: i64,
    id: String,
    status: JobStatus,
    details: Option<String>,
    version: i64,
    document: String,
    queued: i64,
    started: Option<i64>,
    updated: i64,
}

const COLUMNS: &str = "generation, id, status, details, version, document, queued, started, updated";

impl Records {
    /// Puts a job in and answers the bell to ring; none if the very same job is there already.
    pub(crate) async fn put_job(&self, job: PutJob) -> Result<Result<Option<NextJob>, Refused>, CloudError> {
        self.write(move |connection| put(connection, &job)).await
    }

    /// A device asks for a job. `done` is called with the answer.
    pub(crate) fn get_job(
        &self,
        thing: ThingName,
        target: JobTarget,
        request: GetJob,
        now: Timestamp,
        done: impl FnOnce(Result<JobAnswer, CloudError>) + Send + 'static,
    ) -> Result<(), CloudError> {
        self.offer(0, move |connection| get(connection, &thing, &target, request, now), done)
    }

    /// What a device would be answered if it asked for its next job now; `None` for one that is not active.
    pub(crate) async fn next_job(&self, thing: ThingName, now: Timestamp) -> Result<Option<NextJob>, CloudError> {
        self.read(move |connection| {
            let device = devices::find(connection, &thing)?.filter(|device| device.status == DeviceStatus::Active);
            device.map(|device| next(connection, device.id, now)).transpose()
        })
        .await
    }

    /// A device says how far it is. `done` is called with the answer, after the commit.
    pub(crate) fn update_job(
        &self,
        thing: ThingName,
        id: JobId,
        request: UpdateJob,
        now: Timestamp,
        done: impl FnOnce(Result<JobAnswer, CloudError>) + Send + 'static,
    ) -> Result<(), CloudError> {
        self.offer(0, move |connection| update(connection, &thing, &id, request, now), done)
    }
}

pub(super) fn put(connection: &Connection, put: &PutJob) -> Result<Result<Option<NextJob>, Refused>, CloudError> {
    let action = "put a job in";
    let PutJob { thing, generation, id, document, operator, now } = put;
    let device = match devices::find(connection, thing)? {
        Some(device) if device.status == DeviceStatus::Active => device.id,
        Some(_) => return Ok(Err(Refused::Conflict(format!("{thing} is not active")))),
        None => return Ok(Err(Refused::NoSuchDevice)),
    };
    if let Some(last) = latest(connection, device)? {
        let (known, last_id) = (unsigned(last.generation), &last.id);
        if known == *generation && last.document == *document && last_id == id.as_str() {
            return Ok(Ok(None));
        }
        if known >= *generation {
            let sentence = format!("generation {generation} is not above {known}, the last one of {thing}");
            return Ok(Err(Refused::Conflict(sentence)));
        }
        // The service's own doing, whatever the device is about to say.
        let statement = "UPDATE job SET status = ?2, version = version + 1, updated = ?3 \
                         WHERE device = ?1 AND status IN ('QUEUED', 'IN_PROGRESS')";
        connection.execute(statement, params![device, JobStatus::Canceled.as_str(), now.0]).map_err(sql(action))?;
    }
    let taken = "SELECT EXISTS (SELECT * FROM job WHERE device = ?1 AND id = ?2)";
    if connection.query_row(taken, params![device, id.as_str()], |row| row.get(0)).map_err(sql(action))? {
        return Ok(Err(Refused::Conflict(format!("{thing} has had a job {id}"))));
    }
    let statement = "INSERT INTO job (device, generation, id, status, version, document, queued, updated) \
                     VALUES (?1, ?2, ?3, 'QUEUED', 1, ?4, ?5, ?5)";
    connection
        .execute(statement, params![device, signed(*generation), id.as_str(), document, now.0])
        .map_err(sql(action))?;
    // What runs is kept however many jobs have failed since: the next one is made from it.
    let old = "DELETE FROM job WHERE device = ?1 AND generation IS NOT \
               (SELECT max(generation) FROM job WHERE device = ?1 AND status = 'SUCCEEDED') AND generation <= \
               (SELECT generation FROM job WHERE device = ?1 ORDER BY generation DESC LIMIT 1 OFFSET ?2)";
    connection.execute(old, params![device, signed(KEPT)]).map_err(sql(action))?;
    audit(connection, *now, operator, "put a job in", thing.as_str())?;
    next(connection, device, *now).map(|next| Ok(Some(next)))
}

fn get(
    connection: &Connection,
    thing: &ThingName,
    target: &JobTarget,
    request: GetJob,
    now: Timestamp,
) -> Result<JobAnswer, CloudError> {
    let token = request.client_token.as_ref().map(|token| token.as_str().to_owned());
    let device = devices::find(connection, thing)?.filter(|device| device.status == DeviceStatus::Active);
    let Some(device) = device else { return Ok(reject(JobErrorCode::ResourceNotFound, "no such thing", token, now)) };
    device.touch(connection, now)?;
    let job = match target {
        JobTarget::Next => latest(connection, device.id)?.filter(|job| !job.status.is_terminal()),
        JobTarget::Id(id) => match find(connection, device.id, id)? {
            None => return Ok(reject(JobErrorCode::ResourceNotFound, "no such job", token, now)),
            // As AWS documents it for jobs that are over.
            Some(job) if job.status.is_terminal() => {
                return Ok(reject(JobErrorCode::TerminalStateReached, "this job is over", token, now));
            }
            job => job,
        },
    };
    let with_document = request.include_job_document.unwrap_or(true);
    let execution = job.map(|job| job.execution(with_document)).transpose()?;
    Ok(JobAnswer::Got(GotJob { execution, timestamp: Some(WireTime::new(now)), client_token: token }))
}

fn update(
    connection: &Connection,
    thing: &ThingName,
    id: &JobId,
    request: UpdateJob,
    now: Timestamp,
) -> Result<JobAnswer, CloudError> {
    let action = "update a job";
    let token = request.client_token.as_ref().map(|token| token.as_str().to_owned());
    let device = devices::find(connection, thing)?.filter(|device| device.status == DeviceStatus::Active);
    let Some(device) = device else { return Ok(reject(JobErrorCode::ResourceNotFound, "no such thing", token, now)) };
    device.touch(connection, now)?;
    let Some(mut job) = find(connection, device.id, id)? else {
        return Ok(reject(JobErrorCode::ResourceNotFound, "no such job", token, now));
    };
    if let Some(details) = &request.status_details
        && let Err(error) = details.check()
    {
        return Ok(reject(JobErrorCode::InvalidRequest, &error.to_string(), token, now));
    }
    let (found, status) = (unsigned(job.version), &job.status);
    if let Some(expected) = request.expected_version
        && expected != found
    {
        let sentence = format!("the version is {found}, not {expected}");
        return Ok(reject_with(JobErrorCode::VersionMismatch, &sentence, token, now, job.state()?));
    }
    if !status.may_become(&request.status, Party::Device) {
        let sentence = format!("{status} cannot become {}", request.status);
        return Ok(reject_with(JobErrorCode::InvalidStateTransition, &sentence, token, now, job.state()?));
    }
    if let Some(details) = &request.status_details {
        let json = serde_json::to_string(details)
            .map_err(|error| CloudError::Row { what: "job", problem: error.to_string() })?;
        job.details = Some(json);
    }
    job.status = request.status;
    job.version += 1;
    job.started = job.started.or(Some(now.0));
    job.updated = now.0;
    let statement = "UPDATE job SET status = ?3, details = ?4, version = ?5, started = ?6, updated = ?7 \
                     WHERE device = ?1 AND generation = ?2";
    let values =
        params![device.id, job.generation, job.status.as_str(), job.details, job.version, job.started, job.updated];
    connection.execute(statement, values).map_err(sql(action))?;
    let next = job.status.is_terminal().then(|| next(connection, device.id, now)).transpose()?;
    let wants = |asked: Option<bool>| asked.unwrap_or(false);
    let answer = UpdatedJob {
        execution_state: wants(request.include_job_execution_state).then(|| job.state()).transpose()?,
        job_document: wants(request.include_job_document).then(|| job.document()).transpose()?,
        timestamp: Some(WireTime::new(now)),
        client_token: token,
    };
    Ok(JobAnswer::Updated { answer, next })
}

/// What `notify-next` says now.
fn next(connection: &Connection, device: i64, now: Timestamp) -> Result<NextJob, CloudError> {
    let job = latest(connection, device)?.filter(|job| !job.status.is_terminal());
    let execution = job.map(|job| job.execution(true)).transpose()?;
    Ok(NextJob { execution, timestamp: Some(WireTime::new(now)) })
}

fn latest(connection: &Connection, device: i64) -> Result<Option<Job>, CloudError> {
    let statement = format!("SELECT {COLUMNS} FROM job WHERE device = ?1 ORDER BY generation DESC LIMIT 1");
    let mut statement = connection.prepare_cached(&statement).map_err(sql("read a job"))?;
    statement.query_row([device], of_row).optional().map_err(sql("read a job"))
}

fn find(connection: &Connection, device: i64, id: &JobId) -> Result<Option<Job>, CloudError> {
    let statement = format!("SELECT {COLUMNS} FROM job WHERE device = ?1 AND id = ?2");
    let mut statement = connection.prepare_cached(&statement).map_err(sql("read a job"))?;
    statement.query_row(params![device, id.as_str()], of_row).optional().map_err(sql("read a job"))
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        generation: row.get(0)?,
        id: row.get(1)?,
        status: JobStatus::parse(&row.get::<_, String>(2)?),
        details: row.get(3)?,
        version: row.get(4)?,
        document: row.get(5)?,
        queued: row.get(6)?,
        started: row.get(7)?,
        updated: row.get(8)?,
    })
}

impl Job {
    fn execution(self, with_document: bool) -> Result<JobExecution, CloudError> {
        let time = |time| WireTime::new(Timestamp(time));
        Ok(JobExecution {
            job_id: JobId::new(&self.id)?,
            thing_name: None,
            status: self.status.clone(),
            status_details: self.details()?,
            queued_at: Some(time(self.queued)),
            started_at: self.started.map(time),
            last_updated_at: Some(time(self.updated)),
            version_number: Some(unsigned(self.version)),
            execution_number: Some(1),
            job_document: with_document.then(|| self.document()).transpose()?,
        })
    }

    fn state(&self) -> Result<JobExecutionState, CloudError> {
        Ok(JobExecutionState {
            status: self.status.clone(),
            status_details: self.details()?,
            version_number: Some(unsigned(self.version)),
        })
    }

    fn document(&self) -> Result<JobDocument, CloudError> {
        Ok(JobDocument::new(self.document.clone())?)
    }

    fn details(&self) -> Result<Option<StatusDetails>, CloudError> {
        let read = |json: &String| serde_json::from_str(json);
        let bad = |error: serde_json::Error| CloudError::Row { what: "job", problem: error.to_string() };
        self.details.as_ref().map(read).transpose().map_err(bad)
    }
}

fn reject(code: JobErrorCode, message: &str, client_token: Option<String>, now: Timestamp) -> JobAnswer {
    let (message, timestamp) = (Some(message.to_owned()), Some(WireTime::new(now)));
    JobAnswer::Rejected(JobRejected { code, message, client_token, timestamp, execution_state: None })
}

fn reject_with(
    code: JobErrorCode,
    message: &str,
    client_token: Option<String>,
    now: Timestamp,
    state: JobExecutionState,
) -> JobAnswer {
    match reject(code, message, client_token, now) {
        JobAnswer::Rejected(rejected) => JobAnswer::Rejected(JobRejected { execution_state: Some(state), ..rejected }),
        other => other,
    }
}
