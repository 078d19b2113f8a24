//! `authgate password-filter …`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{DENIED, Outcome, Refused, args::PasswordFilterCommand, print, user::password_from_stdin};
use crate::{
    password::{Breached, Built, Rules, build},
    types::Secret,
};

/// Bytes that are read and written at a time.
const BUFFER: usize = 1 << 20;

pub(super) fn run(command: PasswordFilterCommand) -> Outcome {
    match command {
        PasswordFilterCommand::Build { output, list, min_count } => {
            let Built { taken, rare } = build_file(&output, &list, min_count)?;
            let rare = if rare > 0 { format!("; {rare} were seen too seldom") } else { String::new() };
            print(&format!("{}: {taken} passwords{rare}.\n", output.display()))
        }
        PasswordFilterCommand::Check { file, password_stdin } => {
            let list = Breached::load(&file).map_err(|error| named(&file, &error))?;
            let password = match password_stdin {
                true => password_from_stdin()?,
                false => Secret::new(rpassword::prompt_password("Password: ")?),
            };
            if list.contains(&Rules::prepare(&password)?) {
                print(&format!("It is one of {} stolen passwords.\n", list.len()))?;
                return Ok(ExitCode::from(DENIED));
            }
            print(&format!("It is none of {} stolen passwords.\n", list.len()))
        }
    }
}

fn named(file: &Path, error: &dyn std::fmt::Display) -> Refused {
    Refused(format!("{}: {error}", file.display()))
}

fn build_file(output: &Path, list: &Path, min_count: u64) -> Result<Built, Refused> {
    let (name, list): (_, Box<dyn BufRead>) = if list == Path::new("-") {
        (Path::new("standard input"), Box::new(BufReader::with_capacity(BUFFER, io::stdin().lock())))
    } else {
        let file = File::open(list).map_err(|error| named(list, &error))?;
        (list, Box::new(BufReader::with_capacity(BUFFER, file)))
    };
    // Beside its place, so that it is moved there at once.
    let mut partial = output.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let file = File::create_new(&partial).map_err(|error| named(&partial, &error))?;
    let built = build(list, min_count, BufWriter::with_capacity(BUFFER, &file));
    let placed = built.map_err(|error| named(name, &error)).and_then(|built| {
        file.sync_all()
            .and_then(|()| std::fs::rename(&partial, output))
            .map_err(|error| named(output, &error))?;
        Ok(built)
    });
    if placed.is_err() {
        // What is left of it is of no use; that it cannot be removed changes nothing about the reason.
        let _ = std::fs::remove_file(&partial);
    }
    placed
}
