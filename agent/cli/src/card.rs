//! `holm buffer open`: what a device that does not run had for the cloud, read from its card.
//!
//! `holm_image` finds the database and copies it; `holmd look` answers what is in the copy, in the words of a node.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use holm_core::ErrorCode;
use holm_image::ImageError;
use holm_image::card::{Absent, Database, Found, Wanted, copy_folder};
use serde_json::{Value, json};

use crate::buffer::{Look, stat};
use crate::client::{Client, parse};
use crate::failure::Failure;
use crate::look;
use crate::programs;
use crate::reply;
use crate::screen::Screen;

/// See `holm buffer open --help`.
#[derive(clap::Args)]
pub(crate) struct Open {
    /// The card: a disk such as /dev/sdb, a file with a copy of one, or a data folder
    #[arg(value_name = "CARD")]
    card: PathBuf,
    /// The partition that has the data, where several have some
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// The data folder in its file system [default: /holm, else /var/lib/holm]
    #[arg(long, value_name = "PATH")]
    folder: Option<String>,
    /// Keep the database, as it was on the card, in a folder that is made
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    look: Option<Look>,
}

impl Open {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot make a folder for a copy: {error}"));
        let work = tempfile::tempdir().map_err(failed)?;
        let copy = work.path().join("data");
        let found = self.copy(&copy).map_err(|error| self.failure(&error))?;
        if self.look.is_some() || !self.json {
            self.tell(&found, screen);
        }
        let answers = Answers::start(&copy, work.path())?;
        if let Some(recovery) = &answers.recovery {
            let field = |name: &str| recovery.get(name).cloned().unwrap_or_default();
            screen.note(format_args!(
                "warning: the database is damaged ({}); {} rows of it could be read",
                field("reason").as_str().unwrap_or_default(),
                field("rows_saved")
            ));
        }
        match &self.look {
            Some(look) => look.run(&answers.client, screen).await,
            None => self.show(&found, &answers, screen).await,
        }
    }

    /// Copies the database to where it is looked at; with `--out` the other copy is there for good, and nobody opens it.
    fn copy(&self, to: &Path) -> Result<Found, ImageError> {
        let first = self.out.as_deref().unwrap_or(to);
        let found = if self.card.is_dir() {
            copy_folder(&self.card, first)?
        } else {
            let wanted = Wanted { partition: self.partition, folder: self.folder.clone() };
            let database = Database::find(&self.card, &wanted)?;
            database.copy(first)?;
            database.found
        };
        if first != to {
            copy_folder(first, to)?;
        }
        Ok(found)
    }

    /// Where it was.
    fn tell(&self, found: &Found, screen: &Screen) {
        let files: Vec<String> =
            found.files.iter().map(|piece| format!("{} ({})", piece.name, look::bytes(piece.bytes))).collect();
        let label = found.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
        let place = match found.partition {
            0 => found.folder.clone(),
            number => format!("partition {number}{label}, {}", found.folder),
        };
        screen.note(format_args!("found in {place}: {}", files.join(", ")));
        if found.journaled > 0 {
            screen.note(format_args!(
                "the device lost power: {} blocks of its file system are read from the journal",
                look::count(found.journaled)
            ));
        }
        if found.damaged {
            screen.note("warning: the end of that journal is damaged; what was written last is missing");
        }
        if let Some(out) = &self.out {
            screen.note(format_args!("kept in {}", out.display()));
        }
    }

    async fn show(&self, found: &Found, answers: &Answers, screen: &mut Screen) -> Result<(), Failure> {
        let mut answer = answers.client.get("/v1/buffer").await?;
        if self.json {
            if let Some(object) = answer.as_object_mut() {
                object.insert("card".to_owned(), json!(self.card));
                object.insert("found".to_owned(), json!(found));
                object.insert("kept".to_owned(), json!(self.out));
                object.insert("recovery".to_owned(), json!(answers.recovery));
            }
            return screen.json(&answer);
        }
        let count = |name: &str| answer.pointer(&format!("/inbox/{name}")).and_then(Value::as_u64).unwrap_or_default();
        let inbox = format!(
            "{} events wait for functions, and {} were given up\n",
            look::count(count("parked")),
            look::count(count("dead"))
        );
        let buffer: reply::Buffer = parse(json!({ "buffer": answer }), "/v1/buffer", "buffer")?;
        let text = stat(&buffer, &screen.look);
        screen.text(&text)?;
        screen.text(&inbox)?;
        let card = self.card.display();
        screen.note(format_args!("next:  holm buffer open {card} export --output rows.ndjson, or peek"));
        Ok(())
    }

    fn failure(&self, error: &ImageError) -> Failure {
        let card = self.card.display();
        let next = match error {
            ImageError::NoTable { .. } => {
                "name the whole card, such as /dev/sdb (`holm flash --list`), or a file with a copy of all of it"
                    .to_owned()
            }
            ImageError::NoDatabase { why: Absent::NeverBooted, .. } => {
                "put it in a device and give it power: the first boot makes one".to_owned()
            }
            ImageError::NoDatabase { why: Absent::Encrypted, .. } => {
                "open it first (cryptsetup open), and name what it is then: holm buffer open /dev/mapper/NAME"
                    .to_owned()
            }
            ImageError::NoDatabase { why: Absent::Unreadable, .. } => {
                "have the kernel read it: mount it read-only, and name its data folder: holm buffer open FOLDER"
                    .to_owned()
            }
            ImageError::NoDatabase { why: Absent::NotThere, .. } if self.card.is_dir() => {
                "name the node's data folder itself, or its card".to_owned()
            }
            ImageError::NoDatabase { why: Absent::NotThere, .. } => {
                "if the node had its data elsewhere, name that folder: --folder PATH".to_owned()
            }
            ImageError::Several { .. } => "choose one: --partition N".to_owned(),
            ImageError::Mounted { place, .. } => {
                format!(
                    "unmount it (umount {place}), or name the data folder that is there: holm buffer open {place}/..."
                )
            }
            ImageError::Running { .. } => format!("ask the node: holm --data {card} buffer stat"),
            ImageError::NotEmpty { .. } => "name a folder that is not there yet".to_owned(),
            ImageError::File { source, .. } => match source.kind() {
                ErrorKind::NotFound => "name a disk (`holm flash --list`), a file or a folder that is there".to_owned(),
                ErrorKind::PermissionDenied => format!("this needs root: sudo holm buffer open {card}"),
                ErrorKind::StorageFull => "name a folder on a disk with more room: --out DIR and TMPDIR=DIR".to_owned(),
                _ => "copy the card first, so far as it can be read: ddrescue CARD card.img".to_owned(),
            },
            _ => String::new(),
        };
        let failure = Failure::new(error.chain()).page(ErrorCode::CardUnreadable);
        if next.is_empty() { failure } else { failure.next(next) }
    }
}

/// `holmd look`, which answers as a node does. It ends with us.
struct Answers {
    child: Child,
    client: Client,
    /// What was wrong with the database, if anything.
    recovery: Option<Value>,
}

impl Answers {
    fn start(data: &Path, at: &Path) -> Result<Self, Failure> {
        let holmd = programs::holmd()?;
        let failed = |error: std::io::Error| Failure::new(format!("cannot run {}: {error}", holmd.display()));
        let mut command = Command::new(&holmd);
        command.arg("look").arg("--data").arg(data).arg("--at").arg(at).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(failed)?;
        let mut answers = Self { child, client: Client::new(at.to_owned()), recovery: None };
        let mut line = String::new();
        if let Some(out) = answers.child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        let Ok(ready) = serde_json::from_str::<Value>(&line) else { return Err(answers.why()) };
        answers.recovery = ready.get("recovery").filter(|recovery| !recovery.is_null()).cloned();
        Ok(answers)
    }

    /// Why it has ended, in its own words.
    fn why(&mut self) -> Failure {
        let mut words = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_string(&mut words);
        }
        let words = words.trim().trim_start_matches("holmd: ");
        let failure = Failure::new(words).page(ErrorCode::CardUnreadable);
        match words.contains("this release reads up to") {
            true => failure.next("use the `holm` and `holmd` of the device's release, or a later one"),
            false => failure.next("keep a copy of the card: holm buffer open CARD --out DIR"),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
