"""Does a removal need a person's word, and does the rule, or the command, have it?"""

from __future__ import annotations

from common.messages.meta import now
from common.sync import approvals
from common.sync.catalogue import BlockAtNode, RuleAtRse, is_custodial
from common.sync.limits import Limit, single_limit
from common.sync.marks import DESTROYING, Removal, permits
from common.sync.selection import like
from consumers.apply.task import CLOCKS, Task, budget_of


def needs_person(
    task: Task, rule: RuleAtRse, name: str, why: Removal, here: BlockAtNode | None, *, begun: bool = False
) -> Limit | None:
    """Why this batch may not act on the rule without a person's approval, which is on record for one that it covers.

    As it is now: a mark says nothing of a block that is custodial, or on tape, since it was made. `here`: what PhEDEx
    has of the block at the node. `begun`: replicas of it went, and then it only goes forward.
    """
    asks = task.policy.hold_custodial and not begun
    limit = single_limit(
        why, budget_of(task.policy), tape=asks and task.is_on_tape, custodial=asks and is_custodial(rule, here)
    )
    return None if limit is None or is_approved(task, rule, name, why, here, begun=begun) else limit


def is_approved(
    task: Task, rule: RuleAtRse, name: str, why: Removal, here: BlockAtNode | None, *, begun: bool = False
) -> bool:
    """True where a person approved the rule's mark, or this command's approval covers what is on record in the rule.

    Where only a person removes what is custodial, that it is so must have been there to see as well. `here` and `begun`
    as above.
    """
    custodial = task.policy.hold_custodial and not begun and is_custodial(rule, here)
    if custodial and rule.marked and not rule.marked_custodial:
        return False
    if rule.marked and rule.approved and permits(rule.why, why):
        return True
    since, code = approvals.time_of(task.command.approved), task.command.approved
    lifetime = task.sides.rucio.main.approval_lifetime + CLOCKS.total_seconds()
    at, pattern, narrowed = now().timestamp(), task.command.approved_for, task.command.approved_narrowed
    skew = CLOCKS.total_seconds()  # the plan's worker has compared it with its own clock
    problem = approvals.problem_of(
        code, task.command.node, pattern, at=at, lifetime=lifetime, narrowed=narrowed, skew=skew
    )
    if problem or not like(pattern)(name):
        return False
    if approvals.is_everywhere(code, pattern, narrowed) and why not in DESTROYING:
        return False
    if rule.marked and permits(rule.why, why):
        return rule.gone_since <= since
    return approvals.covers(since, rule.hold, why, custodial=custodial)
