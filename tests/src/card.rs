//! A card in QEMU: made, flashed and booted by the real `holm`, with a node of its own in it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConnection, RootCertStore, StreamOwned};

use crate::control_plane::{ControlPlane, client_config};
use crate::functions::repository;
use crate::mosquitto::free_port;
use crate::mqtt::Client;
use crate::node::binary;
use crate::publisher::Publisher;

/// The programs for the card.
const TARGET: &str = "aarch64-unknown-linux-musl";

/// How this machine is called from inside of QEMU.
pub const HOST: &str = "10.0.2.2";

/// The broker's user on every card.
const USER: (&str, &str) = ("field", "secret");

/// Programs that make and boot cards, with the packages of Debian that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("mksquashfs", "squashfs-tools"),
    ("mke2fs", "e2fsprogs"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
];

/// The board whose cards are tried. QEMU's own machine, unless `HOLM_IMAGE_BOARD` says another one.
pub fn board() -> String {
    std::env::var("HOLM_IMAGE_BOARD").unwrap_or_else(|_| "qemu-virt".to_owned())
}

/// Whether it has a kernel of our own: `HOLM_IMAGE_FLAVOUR` is `tiny`, or is not there.
fn is_tiny() -> bool {
    match std::env::var("HOLM_IMAGE_FLAVOUR") {
        Ok(flavour) if flavour == "tiny" => true,
        Ok(flavour) => panic!("there is no flavour `{flavour}`: tiny"),
        Err(_) => false,
    }
}

/// An emulated machine starts some programs ten times more slowly, and shares its cores with other tests. One with the
/// devices of a Raspberry Pi takes minutes where the other takes seconds.
pub fn patience() -> Duration {
    Duration::from_secs(if board() == "qemu-virt" { 240 } else { 900 })
}

/// A card and the machine that it is in.
pub struct Card {
    folder: PathBuf,
    port: u16,
    machine: Option<Child>,
}

/// Lines of the chip that QEMU's own machine has: its power button, twice, and one that nothing hangs on.
const LINES: &str = "
[[gpio]]
name = \"door\"
line = \"GPIO3\"
direction = \"in\"
[[gpio]]
name = \"again\"
line = \"POWER\"
chip = \"9030000.pl061\"
offset = 3
direction = \"in\"
[[gpio]]
name = \"lamp\"
line = \"GPIO5\"
direction = \"out\"
safe = \"low\"
";

/// Whether the machine has lines that the kernel knows how to drive; ours does not need to.
pub fn has_lines() -> bool {
    board() == "qemu-virt" && !is_tiny()
}

/// Why no card can be made or booted here.
pub fn missing() -> Option<String> {
    for program in ["holmd", "holm-init"] {
        if !program_for(program).is_file() {
            return Some(format!("no {program} for {TARGET}: `cargo xtask test` builds it"));
        }
    }
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        folders.any(|folder: PathBuf| folder.join(program).is_file())
    };
    let missing = PROGRAMS.iter().find(|(program, _)| !there(program));
    missing.map(|(program, package)| format!("no {program}: apt-get install {package}"))
}

fn program_for(name: &str) -> PathBuf {
    repository().join("target").join(TARGET).join("release").join(name)
}

/// Makes the image, as somebody would; all that it prints.
pub fn image(output: &Path) -> String {
    image_with(output, &program_for("holmd"), &["--console", "--healthy-for", "2s"])
}

/// The same for a board whose cards are not tried, as it is without any wish.
pub fn image_for(board: &str, output: &Path) -> String {
    build(board, output, &program_for("holmd"), &[])
}

/// An image with a node's program that may be no good, and these options.
pub fn image_with(output: &Path, holmd: &Path, options: &[&str]) -> String {
    build(&board(), output, holmd, options)
}

fn build(board: &str, output: &Path, holmd: &Path, options: &[&str]) -> String {
    let mut command = Command::new(binary("holm"));
    command.args(["image", "build", "--json", "--board", board]).args(options).arg("--output").arg(output);
    command.arg("--holmd").arg(holmd).arg("--init").arg(program_for("holm-init"));
    if is_tiny() {
        command.arg("--tiny");
    }
    // Kept between runs: fetched from Debian once.
    command.arg("--packages").arg(repository().join("target/debian"));
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

/// The node's program for cards, which says that it is another version of as many letters.
pub fn agent(folder: &Path, version: &str) -> PathBuf {
    agent_that(folder, version, None)
}

/// One that dies as soon as it is started, for its first instruction is nowhere.
pub fn dying_agent(folder: &Path, version: &str) -> PathBuf {
    agent_that(folder, version, Some(16))
}

fn agent_that(folder: &Path, version: &str, entry: Option<u64>) -> PathBuf {
    let mut program = std::fs::read(program_for("holmd")).unwrap();
    let (said, says) = (b"holm-agent-build 0.1.0 ", format!("holm-agent-build {version} "));
    let at = memchr::memmem::find(&program, said).unwrap();
    program[at..at + said.len()].copy_from_slice(says.as_bytes());
    if let Some(entry) = entry {
        // `e_entry` of the ELF header.
        program[24..32].copy_from_slice(&entry.to_le_bytes());
    }
    let path = folder.join(format!("holmd-{version}"));
    std::fs::write(&path, program).unwrap();
    path
}

impl Card {
    /// Flashes a card that enrols as `thing` in the group `greenhouse`.
    pub fn flash(folder: &Path, image: &Path, laptop: &Publisher, cloud: &ControlPlane, thing: &str) -> Self {
        let card = Self { folder: folder.to_owned(), port: free_port(), machine: None };
        let config = folder.join("quick.toml");
        let lines = if has_lines() { LINES } else { "" };
        std::fs::write(&config, [crate::cloud::QUICK, lines].concat()).unwrap();
        let https = format!("https://{HOST}:{}", cloud.https.rsplit(':').next().unwrap());
        let mut command = laptop.command(cloud, &["flash", "--yes", "--hostname", thing, "--group", "greenhouse"]);
        command.args([
            "--cloud",
            &https,
            "--mqtt-user",
            USER.0,
            "--mqtt-name",
            "127.0.0.1",
            "--mqtt-iterations",
            "1000",
        ]);
        command.arg("--image").arg(image).arg("--device").arg(card.path()).arg("--config").arg(config);
        command.arg("--mqtt-ca").arg(card.certificate());
        let mut flash = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        flash.stdin.take().unwrap().write_all(format!("{}\n", USER.1).as_bytes()).unwrap();
        let output = flash.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        card
    }

    /// Flashes a card that belongs to nobody.
    pub fn plain(folder: &Path, image: &Path) -> Self {
        let card = Self { folder: folder.to_owned(), port: free_port(), machine: None };
        let mut command = Command::new(binary("holm"));
        command.args(["flash", "--yes", "--hostname", "attic", "--image"]).arg(image).arg("--device").arg(card.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        card
    }

    /// The same, and then somebody has mangled its seed.
    pub fn mangled(folder: &Path, image: &Path) -> Self {
        let card = Self::plain(folder, image);
        let file = std::fs::File::options().read(true).write(true).open(card.path()).unwrap();
        // Within the FAT partition, which the first system begins behind.
        let mut begin = vec![0; 128 << 20];
        file.read_exact_at(&mut begin, 0).unwrap();
        let at = memchr::memmem::find(&begin, b"seed_version = 1").unwrap();
        file.write_all_at(b"seed_version = 7", at as u64).unwrap();
        card
    }

    /// Puts the system of an image into its other slot.
    pub fn update(&self, image: &Path) {
        let mut command = Command::new(binary("holm"));
        command.args(["image", "update", "--image"]).arg(image).arg("--card").arg(self.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The card's file.
    pub fn path(&self) -> PathBuf {
        self.folder.join("card.img")
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("field.crt")
    }

    /// What the machine has said so far, all boots of it.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("serial.log")).unwrap_or_default()).into_owned()
    }

    /// Seconds of the machine's own clock from init's first word in the last boot to a line of the same boot; `None` until it
    /// has been said.
    pub fn seconds_to(&self, what: &str) -> Option<f64> {
        let said = self.said();
        let boot = said.get(said.rfind("holm-init: holm-init ")?.saturating_sub(20)..)?;
        // `[   12.345678] holm-init: ...`
        let at = |words: &str| {
            let line = boot.lines().find(|line| line.contains(words))?;
            line.split_once(']')?.0.rsplit('[').next()?.trim().parse::<f64>().ok()
        };
        Some(at(what)? - at("holm-init: holm-init ")?)
    }

    /// Seconds of the machine's own clock from init's first word in the last boot to the last line that has a time.
    pub fn seconds_to_last(&self) -> Option<f64> {
        let said = self.said();
        let last = said.lines().rfind(|line| line.starts_with('[') && line.contains("] "))?;
        self.seconds_to(last)
    }

    /// Whether the machine is off, or was reset.
    pub fn has_ended(&mut self) -> bool {
        self.machine.as_mut().is_none_or(|machine| machine.try_wait().unwrap().is_some())
    }

    /// Puts it in and gives it power.
    pub fn boot(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("serial.log")).unwrap();
        let mut command = Command::new(binary("holm"));
        command
            .args(["image", "run", "--quiet", "--forward", &format!("{}:8883", self.port), "--card"])
            .arg(self.path());
        command.args(["--", "-qmp", &format!("unix:{},server=on,wait=off", self.monitor().display())]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // QEMU is its child, and both are cut off together.
        self.machine = Some(command.process_group(0).spawn().unwrap());
    }

    /// Where QEMU is told what to do.
    fn monitor(&self) -> PathBuf {
        self.folder.join("monitor")
    }

    /// Presses the power button, for a tenth of a second: a line of the machine's chip that goes up and down.
    pub fn press(&self) {
        let mut socket = BufReader::new(UnixStream::connect(self.monitor()).unwrap());
        for command in ["qmp_capabilities", "system_powerdown"] {
            socket.get_mut().write_all(format!("{{\"execute\": \"{command}\"}}\n").as_bytes()).unwrap();
        }
        // Its greeting, and an answer to each.
        for _ in 0..3 {
            let mut line = String::new();
            socket.read_line(&mut line).unwrap();
            assert!(!line.contains("\"error\""), "{line}");
        }
    }

    /// Cuts the power.
    pub fn cut(&mut self) {
        if let Some(mut machine) = self.machine.take() {
            let group = format!("-{}", machine.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
            let _ = machine.wait();
        }
    }

    /// A connection to its broker, as soon as there is one.
    pub fn client(&self, name: &str) -> Client {
        let deadline = Instant::now() + patience();
        loop {
            match self.connect(name) {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => panic!("no broker: {error}\n{}", self.said()),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn connect(&self, name: &str) -> std::io::Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).unwrap()).unwrap();
        let config = client_config().with_root_certificates(roots).with_no_client_auth();
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        // QEMU takes connections before anybody listens inside.
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let connection = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap());
        let mut stream = StreamOwned::new(connection.map_err(std::io::Error::other)?, socket.try_clone()?);
        stream.flush()?;
        stream.read_exact(&mut [])?;
        Client::login(Box::new(stream), socket, name, USER.0, USER.1)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.cut();
    }
}
