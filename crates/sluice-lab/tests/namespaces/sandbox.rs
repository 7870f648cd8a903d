//! Pods' sandboxes: processes, files, terminals and signals.

use std::os::fd::AsFd;

use sluice_lab::{Ending, MountSource, ProcessSpec, SandboxMount};

use crate::support::{command_lines, eventually, output, pod, process, read_all, runtime, shell};

pub(crate) fn exit_codes_and_output_arrive() {
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        let (ending, text) = output(&pod.sandbox, shell("echo out; echo err >&2; exit 3")).await.unwrap();
        assert_eq!((ending.code, text.as_str()), (3, "out\nerr\n"));
        let (ending, _) = output(&pod.sandbox, shell("kill -9 $$")).await.unwrap();
        assert_eq!(ending, Ending { code: 137, signal: Some(9) });
        let with_env = ProcessSpec {
            env: vec![("GREETING".to_owned(), "hello".to_owned())],
            cwd: Some("/tmp".to_owned()),
            ..shell("echo $GREETING $PWD; env | wc -l")
        };
        let (_, text) = output(&pod.sandbox, with_env).await.unwrap();
        assert!(text.starts_with("hello /tmp\n"), "{text}");

        // Standard input passes through, and many processes at once keep their codes apart.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let (input, feed) = rustix::pipe::pipe().unwrap();
        let cat = pod
            .sandbox
            .spawn(process(&["cat"]), [Some(input.as_fd()), Some(writer.as_fd()), None])
            .await
            .unwrap();
        drop((writer, input));
        rustix::io::write(&feed, b"through").unwrap();
        drop(feed);
        assert_eq!(tokio::task::spawn_blocking(|| read_all(reader)).await.unwrap(), "through");
        assert_eq!(cat.wait().await.code, 0);
        let many: Vec<_> = (0..40_i32)
            .map(|code| {
                let sandbox = pod.sandbox.clone();
                tokio::spawn(async move {
                    output(&sandbox, shell(&format!("exit {code}"))).await.unwrap().0.code == code
                })
            })
            .collect();
        for one in many {
            assert!(one.await.unwrap());
        }
        // A command line of 64 KiB.
        let long = "x".repeat(64 * 1024);
        let (_, text) = output(&pod.sandbox, process(&["echo", &long])).await.unwrap();
        assert_eq!(text.len(), long.len() + 1);
        let beyond = "x".repeat(1024 * 1024);
        let refused = output(&pod.sandbox, process(&["echo", &beyond])).await.unwrap_err();
        assert!(refused.message.contains("limit"), "{refused}");
    });
}

pub(crate) fn a_missing_command_is_explained() {
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        let error = output(&pod.sandbox, process(&["no-such-tool", "-x"])).await.unwrap_err();
        assert!(error.not_found);
        assert_eq!(
            error.message,
            "exec: \"no-such-tool\": executable file not found in $PATH: the lab runs the host's programs; \
             install no-such-tool on the host"
        );
        let nowhere = ProcessSpec { cwd: Some("/no/such".to_owned()), ..process(&["true"]) };
        let error = output(&pod.sandbox, nowhere).await.unwrap_err();
        assert!(error.message.contains("\"/no/such\" does not exist"), "{error}");
        let error = output(&pod.sandbox, process(&["/etc/hostname"])).await.unwrap_err();
        assert!(error.message.contains("Permission denied"), "{error}");
        assert!(output(&pod.sandbox, ProcessSpec::default()).await.is_err());
    });
}

pub(crate) fn the_pod_has_a_root_of_its_own() {
    let outside = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let outside = outside.path().file_name().unwrap().to_str().unwrap().to_owned();
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        println!("  files: {}", pod.sandbox.files());
        let run = async |script: &str| output(&pod.sandbox, shell(script)).await.unwrap().1;
        assert_eq!(run("cat /etc/resolv.conf /etc/hosts /etc/hostname; hostname").await,
            "nameserver 10.43.0.10\n127.0.0.1 localhost\npod-a\npod-a\n");
        assert_eq!(run("ls -A /home /root /run /srv /mnt").await,
            "/home:\n\n/mnt:\n\n/root:\n\n/run:\nlock\n\n/srv:\n");
        assert_eq!(run("id -u").await, "0\n");
        assert!(!run("ls -A /tmp").await.contains(&outside), "the host's /tmp is hidden");
        assert_eq!(run("ls /work /boot /lost+found 2>/dev/null").await, "");
        assert_eq!(run("cat /etc/shadow 2>/dev/null").await, "");
        // Its first process is ours, and it sees nobody else's.
        assert_eq!(run("tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1,2").await, "/sluice __sandbox-init\n");
        let seen: i32 = run("ls -d /proc/[0-9]* | wc -l").await.trim().parse().unwrap();
        assert!(seen < 8, "{seen} processes");
        assert_eq!(run("for f in null zero urandom tty pts/ptmx shm fd stdin; do test -e /dev/$f || test -L /dev/$f || echo $f; done; \
             echo x > /dev/null && head -c 3 /dev/zero | wc -c").await, "3\n");
        assert!(run("touch /tmp/a /root/b /run/c /var/tmp/d /home/e && echo ok").await.contains("ok"));
        assert!(run("echo 1 > /proc/sys/kernel/panic").await.contains("Read-only"));
        // What it writes over the host's files is its own.
        assert_eq!(run("echo mine > /usr/sluice-test && cat /usr/sluice-test").await, "mine\n");
        assert!(!std::path::Path::new("/usr/sluice-test").exists());
        assert_eq!(run("echo mine > /etc/hosts; cat /etc/hosts").await, "mine\n");
    });
}

pub(crate) fn the_pod_cannot_change_its_network() {
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        let (ending, text) = output(&pod.sandbox, shell("ip link set lo down || exit 9")).await.unwrap();
        assert!(ending.code != 0, "{text}");
        let (_, caps) = output(&pod.sandbox, shell("grep CapBnd /proc/self/status")).await.unwrap();
        let bits = u64::from_str_radix(caps.trim().rsplit('\t').next().unwrap(), 16).unwrap();
        for (name, bit) in
            [("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("MKNOD", 27), ("SYS_PTRACE", 19), ("BPF", 39)]
        {
            assert_eq!(bits >> bit & 1, 0, "{name}");
        }
    });
}

pub(crate) fn a_terminal_is_one() {
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        let spec = ProcessSpec {
            terminal: Some((33, 77)),
            ..shell("test -t 0 && stty size && tty && read line && stty size && echo got $line && ps -o tty= -p $$")
        };
        let mut running = pod.sandbox.spawn(spec, [None, None, None]).await.unwrap();
        let terminal = running.terminal.take().unwrap();
        let size = rustix::termios::Winsize { ws_row: 50, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let mut text = String::new();
        let mut buffer = [0; 256];
        while !text.contains("/dev/pts/0") {
            let length = rustix::io::read(&terminal, &mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        assert!(text.contains("33 77"), "{text}");
        rustix::termios::tcsetwinsize(&terminal, size).unwrap();
        rustix::io::write(&terminal, b"word\n").unwrap();
        let rest = tokio::task::spawn_blocking(|| read_all(terminal)).await.unwrap();
        assert!(rest.contains("50 100") && rest.contains("got word"), "{rest}");
        assert_eq!(running.wait().await.code, 0, "{rest}");
        // Hanging up reaches the program.
        let spec = ProcessSpec { terminal: Some((24, 80)), ..process(&["sleep", "1000"]) };
        let mut running = pod.sandbox.spawn(spec, [None, None, None]).await.unwrap();
        drop(running.terminal.take());
        assert_eq!(running.wait().await.signal, Some(libc::SIGHUP));
    });
}

pub(crate) fn signals_arrive_and_groups_die() {
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let trap = shell("trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        let running = pod.sandbox.spawn(trap, [None, Some(writer.as_fd()), None]).await.unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 6);
        assert_eq!(running.ended(), None);
        running.signal(libc::SIGTERM, false).await.unwrap();
        assert_eq!(running.wait().await.code, 7);

        // A container's left-over children go with it; those of an exec stay.
        let leave = |seconds: &str, owns_group| ProcessSpec {
            owns_group,
            ..shell(&format!("sleep {seconds} & exit 0"))
        };
        let left = async |seconds: &str| {
            let script = format!(
                "grep -alz 'sleep' /proc/[0-9]*/cmdline 2>/dev/null | xargs -r grep -al {seconds} | wc -l"
            );
            output(&pod.sandbox, shell(&script)).await.unwrap().1.trim().to_owned()
        };
        let exec = pod.sandbox.spawn(leave("77123", false), [None, None, None]).await.unwrap();
        exec.wait().await;
        assert!(left("77123").await != "0");
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let container =
            pod.sandbox.spawn(leave("77456", true), [None, Some(writer.as_fd()), None]).await.unwrap();
        drop(writer);
        container.wait().await;
        // The pipe ends when the last process that holds it is dead.
        assert_eq!(tokio::task::spawn_blocking(|| read_all(reader)).await.unwrap(), "");
    });
}

pub(crate) fn volumes_are_where_the_manifest_says() {
    let zone = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::write(zone.path().join("zone"), "one").unwrap();
    let mount =
        |source, target: &str, read_only| SandboxMount { source, target: target.to_owned(), read_only };
    runtime().block_on(async {
        let pod = pod(|spec| {
            spec.mounts = vec![
                mount(MountSource::Host(zone.path().to_owned()), "/zone", true),
                mount(MountSource::Scratch("work".to_owned()), "/scratch/a", false),
                mount(MountSource::Scratch("work".to_owned()), "/etc/b", false),
            ];
        })
        .await;
        let run = async |script: &str| output(&pod.sandbox, shell(script)).await.unwrap().1;
        assert_eq!(run("cat /zone/zone").await, "one");
        // Replaced as a whole, as writers of configuration do.
        std::fs::write(zone.path().join("new"), "two").unwrap();
        std::fs::rename(zone.path().join("new"), zone.path().join("zone")).unwrap();
        assert_eq!(run("cat /zone/zone").await, "two");
        assert!(run("touch /zone/x").await.contains("Read-only"));
        assert_eq!(run("echo shared > /scratch/a/f; cat /etc/b/f").await, "shared\n");
    });
}

pub(crate) fn removing_a_sandbox_ends_everything_in_it() {
    let marker = format!("9753{}.{}", std::process::id(), rustix::process::geteuid().as_raw());
    runtime().block_on(async {
        let pod = pod(|_| ()).await;
        let running = pod.sandbox.spawn(process(&["sleep", &marker]), [None, None, None]).await.unwrap();
        pod.sandbox.remove(&pod.enclave).await.unwrap();
        assert_eq!(running.wait().await.code, 137);
        assert!(output(&pod.sandbox, process(&["true"])).await.is_err());
        eventually("its processes are gone", || {
            !command_lines().iter().any(|line| line.contains(&format!("sleep {marker}")))
        });
    });
}
