//! What a request, a transaction or an operation of a multi is (upstream: `ZooDefs.OpCode`).

macro_rules! opcodes {
    ($($name:ident = $number:literal;)*) => {
        /// An operation's number on the wire and in the log.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i32)]
        pub enum OpCode { $($name = $number,)* }

        impl OpCode {
            /// `None` for a number that is no operation.
            pub fn from_wire(raw: i32) -> Option<OpCode> {
                match raw { $($number => Some(OpCode::$name),)* _ => None }
            }

            pub fn to_wire(self) -> i32 {
                self as i32
            }
        }
    };
}

opcodes! {
    Notification = 0;
    Create = 1;
    Delete = 2;
    Exists = 3;
    GetData = 4;
    SetData = 5;
    GetAcl = 6;
    SetAcl = 7;
    GetChildren = 8;
    Sync = 9;
    Ping = 11;
    GetChildren2 = 12;
    Check = 13;
    Multi = 14;
    Create2 = 15;
    Reconfig = 16;
    CheckWatches = 17;
    RemoveWatches = 18;
    CreateContainer = 19;
    DeleteContainer = 20;
    CreateTtl = 21;
    MultiRead = 22;
    Auth = 100;
    SetWatches = 101;
    Sasl = 102;
    GetEphemerals = 103;
    GetAllChildrenNumber = 104;
    SetWatches2 = 105;
    AddWatch = 106;
    WhoAmI = 107;
    CreateSession = -10;
    CloseSession = -11;
    Error = -1;
}

impl OpCode {
    /// What `cons` prints of a connection's last operation (upstream: `FinalRequestProcessor`).
    pub fn short_name(self) -> &'static str {
        use OpCode::*;
        match self {
            CreateSession => "SESS",
            CloseSession => "CLOS",
            Ping => "PING",
            Create | Create2 | CreateContainer | CreateTtl => "CREA",
            Delete | DeleteContainer => "DELE",
            Exists => "EXIS",
            GetData => "GETD",
            SetData => "SETD",
            GetAcl => "GETA",
            SetAcl => "SETA",
            GetChildren | GetChildren2 => "GETC",
            GetAllChildrenNumber => "GETACN",
            Sync => "SYNC",
            Multi => "MULT",
            MultiRead => "MLTR",
            Reconfig => "RECO",
            Check => "CHEC",
            SetWatches => "SETW",
            SetWatches2 => "STW2",
            AddWatch => "ADDW",
            CheckWatches => "CHKW",
            RemoveWatches => "REMW",
            GetEphemerals => "GETE",
            WhoAmI => "HOMI",
            Notification | Auth | Sasl | Error => "NA",
        }
    }

    /// Whether a request of this kind becomes a transaction and so goes through the pipeline.
    pub fn is_write(self) -> bool {
        use OpCode::*;
        matches!(
            self,
            Create
                | Create2
                | CreateContainer
                | CreateTtl
                | Delete
                | SetData
                | SetAcl
                | Multi
                | Reconfig
                | CloseSession
        )
    }
}
