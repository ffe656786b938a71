//! `holm flash --os`: a card with Raspberry Pi OS, of which the first boot makes a node.

use std::path::Path;

use holm_core::ErrorCode;
use holm_image::ImageError;
use holm_image::card_seed::Seed;
use holm_image::disk::{Allowed, Roots};
use holm_image::flash::Flash as Writer;
use holm_image::stock::{Deb, Stock, Way};
use serde_json::json;

use super::{Flash, card_failure, failure};
use crate::failure::Failure;
use crate::look;
use crate::progress::Bar;
use crate::screen::Screen;

impl Flash {
    pub(super) async fn run_os(&self, os: &Path, device: &Path, screen: &mut Screen) -> Result<(), Failure> {
        let roots = Roots::default();
        let packages = self.deb.iter().map(|path| Deb::open(path)).collect::<Result<Vec<_>, _>>();
        let packages = packages.map_err(|error| {
            failure(&error).next("name packages of a release of Holm: holm_VERSION_arm64.deb and the like")
        })?;
        let mut bar = Bar::new();
        let mut stock = Stock::open(os, &mut |progress| bar.show(progress)).map_err(|error| unfit(&error))?;
        drop(bar);
        screen.note(format_args!(
            "{}: {}, {}, {}, seeded {}",
            os.display(),
            stock.system.name,
            stock.system.architecture,
            look::bytes(stock.bytes),
            match stock.system.way {
                Way::CloudInit => "by cloud-init",
                Way::FirstRun => "by a script that systemd runs",
            }
        ));
        let target = self.target(&roots, device, stock.bytes)?;
        let allowed = Allowed { fixed: self.allow_fixed, large: self.allow_large };
        self.may_write(&target, os, stock.bytes, allowed, screen)?;
        // Whether it can be seeded at all, before a token is made for it.
        stock.seed(&Seed::default(), &packages).map_err(|error| unfit(&error))?;
        if self.dry_run {
            screen.note(format_args!("{} can be written with {}; nothing was", device.display(), os.display()));
            return Ok(());
        }
        let made = self.seed.make(screen).await?;
        let seeded = stock.seed(&made.seed, &packages).map_err(|error| unfit(&error))?;
        let mut bar = Bar::new();
        Writer { roots: &roots, target: &target, allowed }
            .write_stock(&mut stock, &seeded, &mut |progress| bar.show(progress))
            .map_err(|error| card_failure(&error))?;
        drop(bar);
        made.keep(screen)?;
        if self.json {
            return screen.json(&json!({
                "device": target.path(), "image": os, "system": stock.system, "sha256": stock.sha256,
                "bytes": stock.bytes, "verified": true, "files": seeded.names().collect::<Vec<_>>(),
                "packages": packages.iter().map(|deb| format!("{} {}", deb.package, deb.version)).collect::<Vec<_>>(),
                "hostname": made.seed.hostname, "cloud": made.seed.enrol.as_ref().map(|enrol| &enrol.cloud),
            }));
        }
        screen.note(format_args!("{} is written and was read back", device.display()));
        screen.note("users and ssh are as the system has them; its first boot installs Holm, without a network");
        self.tell_next(&made.seed, screen);
        Ok(())
    }
}

fn unfit(error: &ImageError) -> Failure {
    let failure = failure(error);
    match error {
        ImageError::Unfit { .. } => failure
            .next("take an image of Raspberry Pi OS (bookworm or trixie) and packages of its architecture, such as --deb holm_VERSION_arm64.deb")
            .page(ErrorCode::SystemUnfit),
        ImageError::Packed { path, program } => {
            failure.next(format!("{program} {}, and name what comes of it", path.display())).page(ErrorCode::SystemUnfit)
        }
        ImageError::File { action: "make room in" | "unpack into", .. } => {
            failure.next("unpack it where there is room (unxz), and name what comes of it")
        }
        _ => failure,
    }
}
