"""Who signed in, who was changed, who called which API: Authentication, Account Change, API Activity.

CloudTrail's events are of one of the three: an event that is neither a sign-in nor a change of an account is API
Activity.
"""

from __future__ import annotations

from collections.abc import Mapping

from strongroom.ingest.ocsf.event_class import (
    ACTOR,
    API,
    BOOL,
    TEXT,
    UIDS,
    USER,
    OcsfClass,
    Part,
    endpoint,
    json_text,
    milliseconds,
)
from strongroom.ingest.sources import cloudtrail, eksaudit, journal, syslog

_IS_ADDRESS = "regexp_full_match(source_address, '[0-9A-Fa-f.:]*[.:][0-9A-Fa-f.:]*')"

_TRAIL: Mapping[str, str] = {
    "actor.user.type": "identity_type",
    "actor.user.name": "user_name",
    "actor.user.uid": "principal_id",
    "actor.user.uid_alt": "arn",
    "actor.user.account.uid": "identity_account",
    "actor.user.credential_uid": "access_key_id",
    "actor.session.issuer": "session_issuer_arn",
    "actor.session.is_mfa": f"CASE WHEN {json_text('userIdentity.sessionContext.attributes')} IS NOT NULL THEN mfa END",
    "actor.session.created_time": milliseconds(json_text("userIdentity.sessionContext.attributes.creationDate")),
    "actor.invoked_by": "invoked_by",
    "actor.idp.name": json_text("userIdentity.identityProvider"),
    "api.operation": "event_name",
    "api.version": json_text("apiVersion"),
    "api.service.name": "event_source",
    "api.request.uid": "request_id",
    "api.response.error": "error_code",
    "api.response.message": "error_message",
    "src_endpoint.ip": f"CASE WHEN {_IS_ADDRESS} THEN source_address END",
    "src_endpoint.domain": f"CASE WHEN NOT {_IS_ADDRESS} THEN source_address END",
    "http_request.user_agent": "user_agent",
}
_SIGNS_IN = """(event_source = 'signin.amazonaws.com' OR event_type = 'AwsConsoleSignIn'
    OR (event_source = 'sts.amazonaws.com' AND (event_name LIKE 'AssumeR%'
        OR event_name IN ('GetSessionToken', 'GetFederationToken'))))"""
_LOGS_IN = """user_name IS NOT NULL
    AND program IN ('sshd', 'sshd-session', 'su', 'login', 'systemd-logind', 'dropbear')"""
_LOGS_OUT = "message LIKE '%session closed%' OR message LIKE 'Disconnected%' OR message LIKE 'Connection%'"
_LINUX: Mapping[str, str] = {
    "user.name": "user_name",
    "src_endpoint.ip": "source_address",
    "src_endpoint.port": "source_port",
    "dst_endpoint.hostname": "host",
    "dst_endpoint.svc_name": "program",
}
_ACCOUNT_ACTIVITY = """CASE
    WHEN event_name IN ('CreateUser', 'CreateRole', 'CreateServiceLinkedRole', 'CreateGroup', 'CreateLoginProfile',
        'CreateAccessKey', 'CreateInstanceProfile') THEN 1
    WHEN event_name IN ('DeleteUser', 'DeleteRole', 'DeleteServiceLinkedRole', 'DeleteGroup', 'DeleteLoginProfile',
        'DeleteAccessKey', 'DeleteInstanceProfile') THEN 6
    WHEN event_name = 'ChangePassword' THEN 3 WHEN event_name = 'UpdateLoginProfile' THEN 4
    WHEN event_name IN ('AttachUserPolicy', 'AttachRolePolicy', 'AttachGroupPolicy', 'PutUserPolicy', 'PutRolePolicy',
        'PutGroupPolicy', 'AddRoleToInstanceProfile', 'AddUserToGroup') THEN 7
    WHEN event_name IN ('DetachUserPolicy', 'DetachRolePolicy', 'DetachGroupPolicy', 'DeleteUserPolicy',
        'DeleteRolePolicy', 'DeleteGroupPolicy', 'RemoveRoleFromInstanceProfile', 'RemoveUserFromGroup') THEN 8
    WHEN event_name = 'EnableMFADevice' THEN 10 WHEN event_name = 'DeactivateMFADevice' THEN 11 END"""
_CHANGES_ACCOUNT = f"(event_source = 'iam.amazonaws.com' AND ({_ACCOUNT_ACTIVITY}) IS NOT NULL)"

AUTHENTICATION = OcsfClass(
    "ocsf_authentication",
    3002,
    "Authentication",
    3,
    "Identity & Access Management",
    {0: "Unknown", 1: "Logon", 2: "Logoff", 99: "Other"},
    {
        **ACTOR,
        **API,
        **endpoint("src"),
        **USER,
        "http_request.user_agent": TEXT,
        "is_mfa": BOOL,
        "dst_endpoint.hostname": TEXT,
        "dst_endpoint.svc_name": TEXT,
    },
    (
        Part(
            cloudtrail.SOURCE,
            _SIGNS_IN,
            "CASE WHEN event_name = 'ConsoleLogin' OR event_source = 'sts.amazonaws.com' THEN 1 ELSE 99 END",
            "CloudTrail",
            {
                **_TRAIL,
                "user.name": json_text("requestParameters.roleSessionName"),
                "user.uid": "CASE WHEN event_source = 'signin.amazonaws.com' THEN principal_id END",
                "user.uid_alt": json_text("requestParameters.roleArn"),
                "is_mfa": "mfa",
                "dst_endpoint.svc_name": json_text("additionalEventData.LoginTo"),
            },
        ),
        Part(journal.SOURCE, _LOGS_IN, f"CASE WHEN {_LOGS_OUT} THEN 2 ELSE 1 END", "Linux", _LINUX),
        Part(
            syslog.SOURCE,
            f"({_LOGS_IN}) OR audit_type IN ('USER_LOGIN', 'USER_AUTH', 'USER_LOGOUT', 'USER_END')",
            f"CASE WHEN audit_type IN ('USER_LOGOUT', 'USER_END') OR {_LOGS_OUT} THEN 2 ELSE 1 END",
            "Linux",
            _LINUX,
        ),
    ),
)

ACCOUNT_CHANGE = OcsfClass(
    "ocsf_account_change",
    3001,
    "Account Change",
    3,
    "Identity & Access Management",
    {
        1: "Create", 2: "Enable", 3: "Password Change", 4: "Password Reset", 5: "Disable", 6: "Delete",
        7: "Attach Policy", 8: "Detach Policy", 10: "MFA Factor Enable", 11: "MFA Factor Disable",
    },
    {**ACTOR, **API, **endpoint("src"), **USER, "http_request.user_agent": TEXT},
    (
        Part(
            cloudtrail.SOURCE,
            _CHANGES_ACCOUNT,
            _ACCOUNT_ACTIVITY,
            "CloudTrail",
            {
                **_TRAIL,
                "user.name": json_text("requestParameters.userName", "requestParameters.roleName",
                                   "requestParameters.groupName"),
                "user.uid": json_text("responseElements.user.userId", "responseElements.role.roleId"),
                "user.uid_alt": json_text("responseElements.user.arn", "responseElements.role.arn"),
            },
        ),
    ),
)  # fmt: skip

API_ACTIVITY = OcsfClass(
    "ocsf_api_activity",
    6003,
    "API Activity",
    6,
    "Application Activity",
    {0: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete", 99: "Other"},
    {**ACTOR, **API, **endpoint("src"), "http_request.user_agent": TEXT, "resources": UIDS},
    (
        Part(
            cloudtrail.SOURCE,
            f"NOT coalesce({_SIGNS_IN}, false) AND NOT coalesce({_CHANGES_ACCOUNT}, false)",
            """CASE WHEN regexp_matches(event_name, '^(Create|Run|Start|Register|Import)') THEN 1
            WHEN regexp_matches(event_name, '^(Delete|Terminate|Deregister|Remove)') THEN 4
            WHEN regexp_matches(event_name, '^(Update|Modify|Put|Set|Attach|Detach|(Dis)?[Aa]ssociate|Enable|Disable)')
                THEN 3
            WHEN read_only OR regexp_matches(event_name, '^(Get|List|Describe|Head|Lookup|BatchGet)') THEN 2
            ELSE 99 END""",
            "CloudTrail",
            {**_TRAIL, "resources": "[{'uid': arn} FOR arn IN resource_arns]"},
        ),
        Part(
            eksaudit.SOURCE,
            "true",
            """CASE WHEN verb = 'create' THEN 1 WHEN verb IN ('get', 'list', 'watch') THEN 2
            WHEN verb IN ('update', 'patch') THEN 3 WHEN verb IN ('delete', 'deletecollection') THEN 4 ELSE 99 END""",
            "Amazon EKS",
            {
                "actor.user.name": "user_name",
                "actor.user.uid": "user_id",
                "actor.user.uid_alt": "arn",
                "actor.user.account.uid": "account",
                "actor.user.credential_uid": "access_key_id",
                "api.operation": "verb",
                "api.service.name": "api_group",
                "api.request.uid": "audit_id",
                "api.response.error": "response_reason",
                "api.response.message": "response_message",
                "src_endpoint.ip": "source_address",
                "http_request.user_agent": "user_agent",
                "resources": "[{'uid': request_uri}]",
            },
        ),
    ),
)
