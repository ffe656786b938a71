//! `holm image`: make the image of a card, look at one, and boot one in QEMU.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, ExitCode, Stdio};

use holm_image::build::{Board, Recipe};
use holm_image::run::{Machine, Taken};
use holm_image::{Image as File, Manifest};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::flash::failure;
use crate::look;
use crate::progress::Bar;
use crate::screen::Screen;
use crate::table::Table;

/// Where `cargo xtask dist` puts programs for devices.
const PROGRAMS: &str = "target/dist/aarch64-unknown-linux-musl";

/// What init says before it restarts into a slot that is on trial.
const INTO_TRIAL: &str = "restarting into slot";

/// What it says before it restarts otherwise.
const RESTARTS: &str = "holm-init: restarting";

/// Lines that wait to be shown.
const LINES: usize = 256;

/// See `holm image --help`.
#[derive(clap::Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an image from Debian's packages and Holm's programs
    Build(Build),
    /// Show what an image is made of, and check it
    Show {
        /// The image
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put an image's system into the slot of a card that it does not boot; the next boot tries it
    Update {
        /// The card: a disk that is not mounted, or a file
        #[arg(long, value_name = "PATH")]
        card: PathBuf,
        /// The image
        #[arg(long, value_name = "FILE")]
        image: PathBuf,
    },
    /// Boot a card in QEMU, in its virt machine or its Raspberry Pi 3, until it powers off or Ctrl-C
    Run(Run),
}

#[derive(clap::Args)]
struct Build {
    /// The board that it is for
    #[arg(long, value_name = "NAME")]
    board: String,
    /// Where it goes [default: holm-BOARD.img, or holm-BOARD-tiny.img]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The agent for that board [default: target/dist/TARGET/holmd, as `cargo xtask dist` makes it]
    #[arg(long, value_name = "FILE")]
    holmd: Option<PathBuf>,
    /// The init for that board [default: target/dist/TARGET/holm-init]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Where Debian's packages are kept [default: $XDG_CACHE_HOME/holm/debian]
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Ask Debian for newer packages; otherwise what was fetched once is used again, and gives the same bytes
    #[arg(long)]
    fresh: bool,
    /// With a kernel of our own, built from Debian's source, in place of Debian's: a quarter of its size, and no Wi-Fi
    #[arg(long)]
    tiny: bool,
    /// Let the card talk on the board's serial line
    #[arg(long)]
    console: bool,
    /// How long a system on trial must run in one piece before it is confirmed
    #[arg(long, hide = true, value_name = "TIME")]
    healthy_for: Option<String>,
    /// When it must have; then the board goes back to its other system
    #[arg(long, hide = true, value_name = "TIME")]
    healthy_within: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Run {
    /// An image or a card that is booted and not changed [default: holm-qemu-virt.img]
    #[arg(long, value_name = "FILE", conflicts_with = "card")]
    image: Option<PathBuf>,
    /// A card, as `holm flash --device FILE` makes it, that keeps what the machine writes
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Ports of this machine's loopback that lead into it
    #[arg(long = "forward", value_parser = ports, value_name = "HOST:GUEST")]
    forward: Vec<(u16, u16)>,
    /// MiB of memory; a Raspberry Pi has what it has
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    memory: u32,
    /// Show only what the card itself says on the serial line
    #[arg(long)]
    quiet: bool,
    /// More for QEMU itself: `-- -gdb tcp::1234`
    #[arg(last = true, value_name = "ARGUMENT")]
    qemu: Vec<String>,
}

impl Image {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        match &self.command {
            Command::Build(build) => build.run(screen)?,
            Command::Show { file, json } => {
                let mut image = File::open(file).map_err(|error| failure(&error))?;
                let mut bar = Bar::new();
                image.check(&mut |progress| bar.show(progress)).map_err(|error| failure(&error))?;
                drop(bar);
                show(&image.manifest, *json, screen)?;
            }
            Command::Update { card, image } => {
                let mut image = File::open(image).map_err(|error| failure(&error))?;
                let mut bar = Bar::new();
                let slot = holm_image::update(card, &mut image, &mut |progress| bar.show(progress))
                    .map_err(|error| failure(&error))?;
                drop(bar);
                screen.note(format_args!("slot {slot} has it; the next boot tries it, and keeps it if it is healthy"));
            }
            Command::Run(run) => return run.run(screen).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Build {
    fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let board = Board::named(&self.board).map_err(|error| failure(&error))?;
        let programs = PathBuf::from(PROGRAMS);
        let program = |given: &Option<PathBuf>, name: &str| {
            let path = given.clone().unwrap_or_else(|| programs.join(name));
            match path.is_file() {
                true => Ok(path),
                false => Err(Failure::new(format!("{} is not there", path.display()))
                    .next("cargo xtask dist aarch64-unknown-linux-musl makes it")),
            }
        };
        let cache = || {
            let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let folder = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
            folder.map(|folder| folder.join("holm/debian"))
        };
        let packages = self.packages.clone().or_else(cache);
        let recipe = Recipe {
            board,
            holmd: program(&self.holmd, "holmd")?,
            init: program(&self.init, "holm-init")?,
            packages: packages
                .ok_or_else(|| Failure::new("there is no home folder").next("name one: --packages DIR"))?,
            fresh: self.fresh,
            tiny: self.tiny,
            console: self.console,
            healthy_for: self.healthy_for.clone(),
            healthy_within: self.healthy_within.clone(),
        };
        let flavour = if self.tiny { "-tiny" } else { "" };
        let output = self.output.clone().unwrap_or_else(|| format!("holm-{}{flavour}.img", board.name).into());
        let manifest = recipe
            .build(&output, &mut |step| screen.note(format_args!("making: {step}")))
            .map_err(|error| failure(&error))?;
        show(&manifest, self.json, screen)?;
        if !self.json {
            screen.note(format_args!("next:  holm flash --image {} --device DEVICE", output.display()));
        }
        Ok(())
    }
}

impl Run {
    async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let image = || self.image.clone().unwrap_or_else(|| PathBuf::from("holm-qemu-virt.img"));
        let card = self.card.clone().unwrap_or_else(image);
        let machine =
            Machine { discard: self.card.is_none(), card, memory: self.memory, forward: self.forward.clone() };
        let cannot = |error: std::io::Error| Failure::new(format!("cannot run QEMU: {error}"));
        let folder = tempfile::tempdir().map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut trial = false;
        loop {
            let taken = Taken::from(&machine.card, trial).map_err(|error| failure(&error))?;
            screen.note(format_args!("booting {}{}", taken.prefix, if trial { ", on trial" } else { "" }));
            let console = format!("console={},115200 loglevel=7", taken.board.console);
            let more = if self.quiet { "" } else { &console };
            let mut command = machine.command(&taken, more, folder.path()).map_err(|error| failure(&error))?;
            let child = command.args(&self.qemu).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cannot)?;
            let mut qemu = Qemu(child);
            let mut lines = read_lines(qemu.0.stdout.take()).map_err(cannot)?;
            let (mut restarts, mut tries) = (false, false);
            loop {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                    _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                };
                let Some(line) = line else { break };
                tries |= line.contains(INTO_TRIAL);
                restarts |= line.contains(RESTARTS);
                screen.line(line.trim_end())?;
            }
            let status = qemu.0.wait().map_err(cannot)?;
            // A machine whose memory alone it was has nothing to come back to.
            if !status.success() || !restarts || machine.discard {
                return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            trial = tries;
        }
    }
}

/// Ends with us, however we end, but for SIGKILL.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of the serial line, as they come.
fn read_lines(out: Option<ChildStdout>) -> std::io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel(LINES);
    let read = move || {
        let Some(out) = out else { return };
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            if sender.blocking_send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("serial".to_owned()).spawn(read)?;
    Ok(receiver)
}

fn show(manifest: &Manifest, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
    if as_json {
        return screen.json(&json!(manifest));
    }
    let mut table = Table::new(&["PART", ">BYTES"]);
    for part in &manifest.parts {
        table.row([(&*part.name).into(), look::count(part.bytes).into()]);
    }
    let mut text = format!(
        "{} {} for {}{}\n",
        manifest.board,
        manifest.version,
        manifest.architecture,
        match (manifest.wifi, manifest.console) {
            (true, true) => ", with Wi-Fi and a console",
            (true, false) => ", with Wi-Fi",
            (false, true) => ", with a console",
            (false, false) => "",
        }
    );
    text.push_str(&table.render(&screen.look));
    for package in &manifest.packages {
        text.push_str(&format!("{} {} (SHA-256 {})\n", package.name, package.version, package.sha256));
    }
    text.push_str(&format!("{} bytes, SHA-256 {}\n", manifest.bytes, manifest.sha256));
    screen.text(&text)
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (host, guest) = text.split_once(':').ok_or("is not HOST:GUEST")?;
    let port = |text: &str| text.parse().map_err(|_| format!("`{text}` is no port"));
    Ok((port(host)?, port(guest)?))
}
