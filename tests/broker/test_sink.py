"""Credit, order and sharing: subscriptions and groups over links that only write down what they are given."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.broker.group import Group
from sockbus.broker.parcel import Parcel, Tally
from sockbus.broker.sink import Sink
from sockbus.broker.subscription import Subscription
from sockbus.errors import SubscriptionStalled
from tests.broker.links import Publisher, Receiver

PLENTY = (1 << 40, 1 << 40, 1 << 40)


def subscription(
    link: Receiver, messages: int = 1 << 40, size: int = 1 << 40, fds: int = 1 << 40, *, strip: bool = False
) -> Subscription:
    return Subscription(link, 1, "a", (messages, size, fds), strip=strip)


def offer(sink: Sink, *parcels: Parcel) -> None:
    for parcel in parcels:
        sink.offer(parcel)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def link() -> Receiver:
    return Receiver()


class TestCredit:
    """When a message may start, and what it takes away."""

    def test_worked_example_of_the_wire(self, publisher: Publisher, link: Receiver) -> None:
        sink = subscription(link, 4, 1000, 64)
        offer(sink, *[publisher.run(1, 400) for _ in range(4)])
        assert link.got == [0, 1, 2]
        assert (sink.messages, sink.bytes, sink.fds) == (1, -200, 64)
        assert sink.give_back(2, 800, 0)
        assert (sink.messages, sink.bytes, sink.fds) == (3, 600, 64)
        sink.progress()
        assert link.got == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        ("credit", "taken"),
        [
            ((4, 1000, 9), 4),
            ((5, 1000, 9), 5),
            ((6, 1000, 9), 5),
            ((9, 399, 9), 4),
            ((9, 400, 9), 4),
            ((9, 401, 9), 5),
            ((9, 1, 9), 1),
        ],
    )
    def test_run_is_split_where_credit_ends(
        self, publisher: Publisher, link: Receiver, credit: tuple[int, int, int], taken: int
    ) -> None:
        sink = subscription(link, *credit)
        parcel = publisher.run(5, 100)
        offer(sink, parcel)
        assert link.got == list(range(taken))
        assert (sink.messages, sink.bytes, sink.fds) == (credit[0] - taken, credit[1] - 100 * taken, credit[2])
        assert publisher.done == ([parcel] if taken == 5 else [])

    @pytest.mark.parametrize("fds", [0, 1, 2])
    def test_message_with_fds_needs_credit_for_fds_and_may_overdraw_it(
        self, publisher: Publisher, link: Receiver, fds: int
    ) -> None:
        sink = subscription(link, 9, 1000, 1)
        offer(sink, publisher.message(fds=fds), publisher.message(fds=1), publisher.message())
        assert link.got == ([0, 1, 2] if not fds else [0])
        assert sink.fds == (0 if not fds else 1 - fds)

    def test_message_without_fds_waits_behind_one_with(self, publisher: Publisher, link: Receiver) -> None:
        sink = subscription(link, 9, 1000, 1)
        offer(sink, publisher.message(fds=1), publisher.message(fds=1), publisher.message())
        assert link.got == [0]
        assert sink.give_back(1, 100, 1)
        sink.progress()
        assert link.got == [0, 1, 2]

    def test_nothing_is_too_large_for_an_empty_queue(self, publisher: Publisher, link: Receiver) -> None:
        sink = subscription(link, 1, 1, 1)
        offer(sink, publisher.message(5000, fds=16, pieces=3))
        assert (link.got, link.fds) == ([0], [16])
        assert (sink.messages, sink.bytes, sink.fds) == (0, 1 - 5003, -15)

    @pytest.mark.parametrize("too_much", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
    def test_more_than_was_taken_cannot_be_given_back(
        self, publisher: Publisher, link: Receiver, too_much: tuple[int, int, int]
    ) -> None:
        sink = subscription(link, 4, 1000, 4)
        offer(sink, publisher.message(100, fds=2))
        assert sink.give_back(1, 100, 2)
        assert not sink.give_back(*too_much)

    @settings(deadline=None)
    @given(st.lists(st.integers(1, 9), max_size=8), st.lists(st.integers(0, 5), max_size=40), st.integers(1, 600))
    def test_whatever_is_split_comes_whole_once_and_in_order(
        self, runs: list[int], grants: list[int], size: int
    ) -> None:
        publisher, link = Publisher(), Receiver()
        sink = subscription(link, 1, size)
        offer(sink, *[publisher.run(count, 60) for count in runs])
        taken = 0
        for grant in [*grants, *[1] * 100]:
            back = min(grant, len(link.got) - taken)
            taken += back
            assert sink.give_back(back, 60 * back, 0)
            sink.progress()
            assert len(link.got) - taken <= 1
        assert link.got == list(range(sum(runs)))
        assert [parcel.count for parcel in publisher.done] == runs
        assert not sink.waiting


class TestRoom:
    """A link that is full counts as one without credit."""

    def test_subscription_without_room_is_called_when_there_is_some(self, publisher: Publisher, link: Receiver) -> None:
        sink = subscription(link)
        link.room = 1
        offer(sink, publisher.run(3), publisher.run(2))
        assert link.got == [0, 1, 2]
        assert list(link.starved) == [sink]
        link.feed()
        assert link.got == [0, 1, 2, 3, 4]

    def test_end_drops_what_waits_and_says_so(self, publisher: Publisher, link: Receiver) -> None:
        link.room = 0
        sink, other = subscription(link), subscription(Receiver())
        tally = Tally(publisher, 1, 2)
        parcel = publisher.message(tally=tally)
        offer(sink, parcel)
        offer(other, parcel)
        assert publisher.done == []
        sink.close()
        assert publisher.done == [parcel]
        assert publisher.told == [tally]
        assert (tally.matched, tally.delivered, tally.dropped, tally.without_fds) == (2, 1, 1, 0)

    def test_end_that_comes_before_it_is_left_counts_what_waits(self, publisher: Publisher, link: Receiver) -> None:
        sink = subscription(link, 2)
        offer(sink, publisher.run(5), publisher.run(4))
        assert sink.waiting_messages == 7
        link.end_subscription(sink, SubscriptionStalled("x"))
        assert link.story == [(0, 0), (1, 0), (-1, 7)]
        assert (sink.lost, sink.ended, len(publisher.done)) == (7, True, 2)

    def test_end_in_the_middle_of_a_run_ends_it_once(self, publisher: Publisher, link: Receiver) -> None:
        sink = subscription(link, 2)
        first, second = publisher.run(5), publisher.run(1)
        offer(sink, first, second)
        sink.close()
        assert publisher.done == [first, second]
        assert link.got == [0, 1]


class TestWithoutFds:
    """Links that carry no descriptors."""

    def test_rejected_message_is_lost_and_said_to_be(self, publisher: Publisher) -> None:
        link = Receiver(carries_fds=False)
        sink, tally = subscription(link), Tally(publisher, 1, 1)
        offer(sink, publisher.message(fds=1, tally=tally))
        assert (link.got, link.fronts, sink.lost) == ([], [(0, 1)], 1)
        assert (tally.delivered, tally.dropped, tally.without_fds) == (0, 0, 1)
        assert sink.messages == sink.capacity_messages

    def test_stripped_message_needs_no_credit_for_fds(self, publisher: Publisher) -> None:
        link = Receiver(carries_fds=False)
        sink = subscription(link, fds=1, strip=True)
        offer(sink, *[publisher.message(fds=3) for _ in range(3)])
        assert (link.got, link.fds, sink.lost, sink.fds) == ([0, 1, 2], [0, 0, 0], 0, 1)

    def test_message_that_waits_is_refused_in_its_turn(self, publisher: Publisher) -> None:
        link = Receiver(carries_fds=False)
        sink = subscription(link, messages=1)
        offer(sink, publisher.run(1), publisher.run(1), publisher.message(fds=1), publisher.run(1))
        assert (link.got, link.fronts) == ([0], [(1, 0)])
        sink.give_back(1, 100, 0)
        sink.progress()
        assert link.fronts == [(1, 0), (1, 0), (0, 1)]

    def test_losses_without_room_are_told_in_one_front_when_there_is_some(self, publisher: Publisher) -> None:
        link = Receiver(carries_fds=False)
        sink = subscription(link)
        link.room = 0
        offer(sink, *[publisher.message(fds=1) for _ in range(1000)])
        assert (link.fronts, len(link.starved), sink.lost) == ([], 1, 1000)
        link.feed()
        assert (link.fronts, link.starved) == ([(0, 1000)], {})
        offer(sink, publisher.message(fds=1))
        assert link.fronts == [(0, 1000), (0, 1)]

    def test_losses_are_told_before_the_message_behind_them(self, publisher: Publisher) -> None:
        link = Receiver(carries_fds=False)
        sink = subscription(link)
        link.room = 0
        offer(sink, publisher.message(fds=1), publisher.message(fds=1), publisher.run(1))
        starved, link.starved = list(link.starved), {}
        link.room = 5
        sink.progress()
        assert link.fronts == [(0, 2), (1, 0)]
        for waiting in starved:
            waiting.progress()
        assert link.fronts == [(0, 2), (1, 0)]


class TestGroup:
    """Members share: each message goes to one of them."""

    @staticmethod
    def group(*members: Subscription) -> Group:
        group = Group("g", "a")
        group.members.extend(members)
        return group

    def test_run_is_shared_out_evenly(self, publisher: Publisher) -> None:
        links = [Receiver() for _ in range(3)]
        offer(self.group(*map(subscription, links)), publisher.run(9), publisher.run(3))
        assert [len(link.got) for link in links] == [4, 4, 4]
        assert sorted(itertools.chain(*(link.got for link in links))) == list(range(12))
        assert all(link.got == sorted(link.got) for link in links)

    def test_member_with_the_fewest_outstanding_is_picked(self, publisher: Publisher) -> None:
        links = [Receiver() for _ in range(3)]
        members = [subscription(link) for link in links]
        group = self.group(*members)
        offer(group, publisher.run(6))
        members[1].give_back(2, 200, 0)
        members[2].give_back(1, 100, 0)
        for link in links:
            link.got.clear()
        offer(group, publisher.run(2))
        assert [link.got for link in links] == [[], [6], [7]]
        assert max(member.outstanding for member in members) == 2

    def test_member_without_credit_or_room_is_passed_over(self, publisher: Publisher) -> None:
        poor, full, free = Receiver(), Receiver(), Receiver()
        full.room = 0
        group = self.group(subscription(poor, 1), subscription(full), subscription(free))
        offer(group, publisher.run(5))
        assert (len(poor.got), len(full.got), len(free.got)) == (1, 0, 4)
        assert list(full.starved) == [group]

    def test_group_without_credit_waits_as_one(self, publisher: Publisher) -> None:
        links = [Receiver(), Receiver()]
        members = [subscription(link, 1) for link in links]
        group = self.group(*members)
        offer(group, publisher.run(4), publisher.run(1))
        assert [len(link.got) for link in links] == [1, 1]
        members[1].give_back(1, 100, 0)
        group.progress()
        assert [len(link.got) for link in links] == [1, 2]
        assert len(group.waiting) == 2

    def test_sole_member_takes_a_run_at_once(self, publisher: Publisher, link: Receiver) -> None:
        offer(self.group(subscription(link)), publisher.run(50))
        assert link.fronts == [(50, 0)]

    def test_message_with_fds_goes_to_a_member_that_carries_them(self, publisher: Publisher) -> None:
        local, remote = Receiver(), Receiver(carries_fds=False)
        group = self.group(subscription(remote), subscription(local))
        offer(group, *[publisher.message(fds=1) for _ in range(4)])
        assert (local.fds, remote.got, remote.fronts) == ([1, 1, 1, 1], [], [])

    def test_message_with_fds_waits_for_the_member_that_carries_them(self, publisher: Publisher) -> None:
        local, remote = Receiver(), Receiver(carries_fds=False)
        group = self.group(subscription(remote), subscription(local, 1))
        offer(group, publisher.message(fds=1), publisher.message(fds=1), publisher.run(1))
        assert (local.got, remote.got, len(group.waiting)) == ([0], [], 2)

    def test_message_with_fds_that_no_member_carries_is_lost_once(self, publisher: Publisher) -> None:
        links = [Receiver(carries_fds=False), Receiver(carries_fds=False)]
        members = [subscription(link) for link in links]
        tally = Tally(publisher, 1, 1)
        offer(self.group(*members), publisher.message(fds=1, tally=tally))
        assert sum(member.lost for member in members) == 1
        assert sorted(len(link.fronts) for link in links) == [0, 1]
        assert tally.without_fds == 1

    def test_only_members_that_are_next_are_looked_at(self, publisher: Publisher) -> None:
        """Nothing interrupts an offer, and all members for each message would be a third of a second."""
        looks: list[int] = []

        class Watched(Receiver):
            def has_room(self, fds: int) -> bool:
                looks.append(fds)
                return super().has_room(fds)

        links = [Watched() for _ in range(100)]
        for link in links[:10]:
            link.room = 0
        offer(self.group(*map(subscription, links)), publisher.run(900), publisher.message(fds=1))
        assert [len(link.got) for link in links] == [0] * 10 + [11] + [10] * 89
        assert len(looks) == 10 + 900 + 10 + 1

    @settings(deadline=None)
    @given(
        st.lists(st.integers(1, 5), min_size=1, max_size=5),
        st.lists(st.one_of(st.integers(1, 9), st.tuples(st.integers(0, 4), st.integers(1, 3))), max_size=40),
    )
    def test_fewest_outstanding_comes_first_then_the_one_not_used_longest(
        self, capacities: list[int], acts: list[int | tuple[int, int]]
    ) -> None:
        publisher = Publisher()
        links = [Receiver() for _ in capacities]
        members = [subscription(link, credit) for link, credit in zip(links, capacities, strict=True)]
        group = self.group(*members)
        outstanding, used = [0] * len(members), [0] * len(members)
        expected: list[list[int]] = [[] for _ in members]
        published = shared = 0
        for act in acts:
            if isinstance(act, int):
                published += act
                offer(group, publisher.run(act))
            else:
                which = act[0] % len(members)
                back = min(act[1], outstanding[which])
                outstanding[which] -= back
                members[which].give_back(back, 100 * back, 0)
                group.progress()
            while shared < published:
                free = [index for index, capacity in enumerate(capacities) if outstanding[index] < capacity]
                if not free:
                    break
                chosen = min(free, key=lambda index: (outstanding[index], used[index]))
                outstanding[chosen] += 1
                used[chosen] = shared + 1
                expected[chosen].append(shared)
                shared += 1
            assert [link.got for link in links] == expected

    @settings(deadline=None)
    @given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def test_nothing_is_dropped_or_doubled_while_members_leave(self, runs: list[int], capacities: list[int]) -> None:
        publisher = Publisher()
        links = [Receiver() for _ in capacities]
        members = [subscription(link, credit) for link, credit in zip(links, capacities, strict=True)]
        group = self.group(*members)
        for count in runs:
            offer(group, publisher.run(count))
            if len(group.members) > 1:
                group.members.pop(0)
                group.progress()
        last = group.members[-1]
        while group.waiting:
            assert last.outstanding, "with credit it would have taken more"
            last.give_back(last.outstanding, 100 * last.outstanding, 0)
            group.progress()
        assert sorted(itertools.chain(*(link.got for link in links))) == list(range(sum(runs)))
        assert len(publisher.done) == len(runs)
