"""Accounts, teams and memberships."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from headway.errors import HeadwayError
from headway.ids import new_id
from store.models import Account, Membership, Project, Team
from store.paging import Page, fetch_page
from store.sight import Sight
from store.slugs import short_hash, slugify

ROLES = ("owner", "admin", "site_manager", "observer", "billing")


def account(session: Session, account_id: str) -> Account:
    found = session.get(Account, account_id)
    if found is None:
        raise HeadwayError("account.not_found", f"There is no account {account_id}.", param="account_id")
    return found


def account_by_email(session: Session, email: str) -> Account | None:
    return session.exec(select(Account).where(Account.email == email.lower())).first()


def make_account(session: Session, name: str, email: str | None, *, operator: bool = False) -> Account:
    made = Account(id=new_id("acct"), name=name, email=email.lower() if email else None, operator=operator)
    session.add(made)
    session.flush()
    return made


def list_teams(session: Session, sight: Sight, page: Page) -> tuple[Sequence[Team], bool]:
    query = select(Team)
    if sight.team_id is not None:
        query = query.where(Team.id == sight.team_id)
    return fetch_page(session, query, page, time=Team.created_at, id=Team.id)


def team(session: Session, sight: Sight, team_id: str) -> Team:
    """Raises team.not_found for an unknown team and for another's."""
    found = session.get(Team, team_id) if sight.team_id in (None, team_id) else None
    if found is None:
        raise HeadwayError("team.not_found", f"There is no team {team_id}.", param="team_id")
    return found


def make_team(session: Session, name: str, slug: str | None, owner: Account | None) -> tuple[Team, Project]:
    """A team with its default project. Raises team.slug_taken where the slug was asked for by name."""
    wanted = slug or slugify(name) or "team"
    taken = session.exec(select(Team).where(Team.slug == wanted)).first() is not None
    if taken and slug:
        raise HeadwayError("team.slug_taken", f"A team with the slug {slug} exists.", param="slug")
    made = Team(id=new_id("team"), name=name, slug=wanted)
    if taken:
        made.slug = f"{wanted}-{short_hash(made.id)}"
    session.add(made)
    session.flush()
    if owner is not None:
        session.add(Membership(team_id=made.id, account_id=owner.id, role="owner"))
    project = Project(id=new_id("proj"), team_id=made.id, name="Default", slug="default", is_default=True)
    session.add(project)
    session.flush()
    return made, project


def list_members(session: Session, team_id: str, page: Page) -> tuple[Sequence[tuple[Membership, Account]], bool]:
    rows, more = fetch_page(
        session,
        select(Membership).where(Membership.team_id == team_id),
        page,
        time=Membership.created_at,
        id=Membership.account_id,
    )
    ids = [row.account_id for row in rows]
    accounts = {a.id: a for a in session.exec(select(Account).where(col(Account.id).in_(ids)))}
    return [(row, accounts[row.account_id]) for row in rows], more


def membership(session: Session, team_id: str, account_id: str, *, lock: bool = False) -> Membership:
    found = session.get(Membership, (team_id, account_id), with_for_update=lock or None)
    if found is None:
        raise HeadwayError("member.not_found", f"{account_id} is no member of this team.", param="account_id")
    return found


def add_member(session: Session, team_id: str, of: Account, role: str) -> Membership:
    """Raises member.exists. A second owner is never added: ownership is transferred (`change_role`)."""
    if session.get(Membership, (team_id, of.id)) is not None:
        raise HeadwayError("member.exists", f"{of.id} is a member already.", param="account_id")
    if role == "owner" and _owner(session, team_id) is not None:
        raise HeadwayError("team.last_owner", "A team has one owner: transfer the ownership instead.", param="role")
    made = Membership(team_id=team_id, account_id=of.id, role=role)
    session.add(made)
    session.flush()
    return made


def change_role(session: Session, team_id: str, account_id: str, role: str) -> Membership:
    """`owner` moves the ownership: the owner until now becomes an admin. Raises team.last_owner on a demotion."""
    session.get(Team, team_id, with_for_update=True)
    member = membership(session, team_id, account_id, lock=True)
    if member.role == role:
        return member
    if member.role == "owner":
        raise HeadwayError("team.last_owner", "A team keeps one owner: make another member the owner.", param="role")
    if role == "owner" and (owner := _owner(session, team_id)) is not None:
        owner.role = "admin"
    member.role = role
    session.flush()
    return member


def remove_member(session: Session, team_id: str, account_id: str) -> None:
    member = membership(session, team_id, account_id, lock=True)
    if member.role == "owner":
        raise HeadwayError("team.last_owner", "The owner cannot leave before the ownership is transferred.")
    session.delete(member)


def _owner(session: Session, team_id: str) -> Membership | None:
    return session.exec(select(Membership).where(Membership.team_id == team_id, Membership.role == "owner")).first()
