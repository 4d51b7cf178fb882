//! The volume behind `/dev/fuse`, and the conversation with the test that cuts its power.

use std::ffi::OsStr;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use fuser::{
    BackgroundSession, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::volume::{Attributes, Loss, Refused, Volume};

/// How long the kernel may remember an answer; nobody changes the volume behind its back.
const REMEMBER: Duration = Duration::from_secs(1);

/// Serves an empty disk at `mount_point` until `requests` end: `cut`, `cut SEED` and `on`, one a line, each
/// answered by `ok …` or `failed …`.
pub fn serve(
    mount_point: &Path,
    requests: impl BufRead,
    mut answers: impl Write,
) -> anyhow::Result<()> {
    let mut server = Server {
        mount_point,
        volume: Arc::default(),
        session: None,
    };
    let mut answer = server.mount().map(|()| "mounted".to_owned());
    let mut requests = requests.lines();
    loop {
        match answer {
            Ok(text) => writeln!(answers, "ok {text}")?,
            Err(error) => writeln!(answers, "failed {error:#}")?,
        }
        answers.flush()?;
        let Some(request) = requests.next() else {
            break;
        };
        answer = server.carry_out(&request?);
    }
    server.unmount()
}

struct Server<'a> {
    mount_point: &'a Path,
    volume: Arc<Mutex<Volume>>,
    session: Option<BackgroundSession>,
}

impl Server<'_> {
    fn carry_out(&mut self, request: &str) -> anyhow::Result<String> {
        let words: Vec<&str> = request.split_whitespace().collect();
        let loss = match words[..] {
            ["on"] => {
                self.unmount()?;
                lock(&self.volume).power_on();
                self.mount()?;
                return Ok("on".to_owned());
            }
            ["cut"] => Loss::Everything,
            ["cut", seed] => Loss::Some {
                seed: seed.parse()?,
            },
            _ => bail!("no such request: {request}"),
        };
        let mut volume = lock(&self.volume);
        let syncs = volume.syncs();
        volume.cut(loss);
        Ok(syncs.to_string())
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let mut options = fuser::Config::default();
        options.mount_options = vec![MountOption::FSName("power-cut".to_owned())];
        let served = Served {
            volume: self.volume.clone(),
            mounted_at: std::time::UNIX_EPOCH,
        };
        self.session = Some(fuser::spawn_mount(served, self.mount_point, &options)?);
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        if let Err(error) = session.umount_and_join() {
            // A program still holds a file open: take the mount out of sight, it ends with that program.
            let detached = Command::new("umount")
                .arg("-l")
                .arg(self.mount_point)
                .status();
            detached.with_context(|| format!("unmount: {error}"))?;
        }
        Ok(())
    }
}

fn lock(volume: &Mutex<Volume>) -> MutexGuard<'_, Volume> {
    volume.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Served {
    volume: Arc<Mutex<Volume>>,
    mounted_at: SystemTime,
}

impl Served {
    fn volume(&self) -> MutexGuard<'_, Volume> {
        lock(&self.volume)
    }

    fn attr(&self, attributes: &Attributes) -> FileAttr {
        let at = self.mounted_at;
        FileAttr {
            ino: INodeNo(attributes.number),
            size: attributes.size_bytes,
            blocks: attributes.size_bytes.div_ceil(512),
            atime: at,
            mtime: at,
            ctime: at,
            crtime: at,
            kind: kind(attributes),
            perm: 0o777,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn reply_entry(&self, found: Result<Attributes, Refused>, reply: ReplyEntry) {
        match found {
            Ok(attributes) => reply.entry(&REMEMBER, &self.attr(&attributes), Generation(0)),
            Err(refused) => reply.error(refused.into()),
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.volume().lookup(parent.0, name);
        self.reply_entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume().attributes(ino.0) {
            Ok(attributes) => reply.attr(&REMEMBER, &self.attr(&attributes)),
            Err(refused) => reply.error(refused.into()),
        }
    }

    // Of all attributes only the size is kept.
    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut volume = self.volume();
        let truncated = size.map_or(Ok(()), |size| volume.truncate(ino.0, bytes(size)));
        match truncated.and_then(|()| volume.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&REMEMBER, &self.attr(&attributes)),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn mkdir(&self, _: &Request, at: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.volume().create_directory(at.0, name);
        self.reply_entry(made, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.volume().create_file(parent.0, name) {
            Ok(attributes) => {
                let attr = self.attr(&attributes);
                let (handle, flags) = (FileHandle(0), FopenFlags::FOPEN_NOFLUSH);
                reply.created(&REMEMBER, &attr, Generation(0), handle, flags);
            }
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.volume().attributes(ino.0) {
            // Closing a file syncs nothing, so there is nothing to tell.
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_NOFLUSH),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.volume().read(ino.0, bytes(offset), size as usize) {
            Ok(data) => reply.data(data),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(data.len()).expect("the kernel writes at most 16 MiB at once");
        match self.volume().write(ino.0, bytes(offset), data) {
            Ok(()) => reply.written(length),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        let synced = self.volume().sync(ino.0);
        done(synced, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        let synced = self.volume().sync(ino.0);
        done(synced, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.volume().remove(parent.0, name, false);
        done(removed, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.volume().remove(parent.0, name, true);
        done(removed, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let renamed = self
            .volume()
            .rename((parent.0, name), (new_parent.0, new_name), replace);
        done(renamed, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.volume().entries(ino.0) {
            Ok(entries) => entries,
            Err(refused) => return reply.error(refused.into()),
        };
        for (next, (name, attributes)) in (1..).zip(&entries).skip(bytes(offset)) {
            if reply.add(INodeNo(attributes.number), next, kind(attributes), name) {
                break;
            }
        }
        reply.ok();
    }
}

fn kind(attributes: &Attributes) -> FileType {
    if attributes.is_directory {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn bytes(offset: u64) -> usize {
    usize::try_from(offset).expect("a disk in memory is smaller than memory")
}

fn done(outcome: Result<(), Refused>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(refused) => reply.error(refused.into()),
    }
}

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Errno {
        match refused {
            Refused::NotFound => Errno::ENOENT,
            Refused::Exists => Errno::EEXIST,
            Refused::NotDirectory => Errno::ENOTDIR,
            Refused::IsDirectory => Errno::EISDIR,
            Refused::NotEmpty => Errno::ENOTEMPTY,
            Refused::PowerIsOff => Errno::EIO,
        }
    }
}
