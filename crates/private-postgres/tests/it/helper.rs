//! Further processes: this test program once more, told by its environment what to do.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use podium_private_postgres::testing::SharedServer;
use podium_private_postgres::{PrivatePostgres, Settings};

use crate::common::kill_nine;

const ROLE: &str = "PODIUM_HELPER_ROLE";
const DIR: &str = "PODIUM_HELPER_DIR";

/// Goes before what a helper reports, amid the output of the test harness.
const MARK: &str = "HELPER:";

/// A helper process that has not been waited for.
pub(crate) struct Helper {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts the private server in `dir` and holds it.
    pub(crate) fn server(dir: &Path) -> Self {
        Self::spawn(command("server", dir))
    }

    /// Joins the shared server in `dir`, which may be unused for a second, and holds on to it.
    pub(crate) fn shared(dir: &Path) -> Self {
        Self::spawn(command("shared", dir))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for the report: a URL.
    pub(crate) fn url(&mut self) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).unwrap();
            assert!(length > 0, "the helper ended without a report: {seen}");
            if let Some((_, report)) = line.split_once(MARK) {
                return report.trim().to_owned();
            }
            seen.push_str(&line);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end in the orderly way.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        kill_nine(self.child.id());
        self.child.wait().unwrap();
    }
}

/// The command of a helper.
pub(crate) fn command(role: &str, dir: &Path) -> Command {
    command_by(&std::env::current_exe().unwrap(), role, dir)
}

/// The command of a helper, by a copy of this program.
pub(crate) fn command_by(program: &Path, role: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([
        "helper::plays_the_role_that_it_is_given",
        "--exact",
        "--nocapture",
    ]);
    command.env(ROLE, role).env(DIR, dir);
    // As a shell does, so that a signal to the tests' group does not hit it.
    command.process_group(0);
    command
}

/// The other side of the tests that need further processes. Without a role it is a test of its own: a helper that does not
/// know its role fails, so that none of those tests waits for one that plays nothing.
#[test]
fn plays_the_role_that_it_is_given() {
    let Some(dir) = std::env::var_os(DIR) else {
        let helper = command("nobody", Path::new("")).output().unwrap();
        assert!(!helper.status.success());
        let said = String::from_utf8_lossy(&helper.stderr);
        assert!(said.contains("unknown role nobody"), "{said}");
        return;
    };
    let dir = Path::new(&dir);
    match std::env::var(ROLE).unwrap().as_str() {
        "server" => {
            let server = PrivatePostgres::start(&Settings::new(dir)).unwrap();
            report_and_wait(&server.url("podium"));
            server.stop().unwrap();
        }
        "shared" => {
            let server = SharedServer::join_at(dir, Duration::from_secs(1)).unwrap();
            report_and_wait(&server.url("podium"));
        }
        "shared-by-default" => {
            let server = SharedServer::join().unwrap();
            assert_eq!(server.state_dir(), dir.join("state"));
            report_and_wait(&server.url("podium"));
        }
        other => panic!("unknown role {other}"),
    }
}

fn report_and_wait(url: &str) {
    println!("{MARK}{url}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
