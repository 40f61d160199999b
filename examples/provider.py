"""Sell GPU-hours one will deliver: nominate capacity, offer it, and follow the hour to its payout.

    python examples/provider.py ws://127.0.0.1:8765 provider.key L4-EUC-H26112214 20 0.65

The key needs the scope `provide`: wellhead keys create provider --scope read --scope trade --scope provide
A nomination takes a bond from the account's cash; it comes back after delivery. A provider whose meter is registered
runs `wellhead meter run` through the hour and is paid by its reports; one without is paid as having performed.
"""

import asyncio
import sys

from wellhead import BalanceEvent, Client, DeliveryEvent, Fill, InstrumentEvent, MoneyEvent


async def until_closed(client: Client, symbol: str) -> None:
    """Wait for the contract's gate."""
    async for event in client.listings():
        if closed(event, symbol):
            return


def closed(event: InstrumentEvent, symbol: str) -> bool:
    return any(one.sym == symbol and one.status in ("closed", "delisted") for one in event.instruments)


async def follow(client: Client, events, symbol: str) -> None:
    """Tell what happens to the account until the last lot is delivered."""
    sold = due = done = 0
    gate = asyncio.create_task(until_closed(client, symbol))
    async for event in events:
        match event:
            case Fill(qty=qty, px=px, side="sell"):
                sold += qty
                print(f"sold {qty} at {px}, {sold} in all", flush=True)
            case MoneyEvent(what="bond_released", amount=amount):
                print(f"bond of {amount} released")
            case DeliveryEvent(what="due", lots=lots, role="provider"):
                due = lots
                print(f"{lots} lots are to be delivered in {symbol}", flush=True)
            case DeliveryEvent(what="done", lots=lots, amount=amount, damages=damages, role="provider"):
                done += lots
                print(f"{lots} lots delivered: {amount} of pay and bond, damages {damages}")
            case BalanceEvent(balances=balances) if gate.done() and done >= due:
                print(f"cash {balances.cash}, bond {balances.bond}, escrow {balances.escrow}")
                return
        if gate.done() and not sold:
            print("nothing was sold")
            return


async def main(url: str, key_file: str, symbol: str, lots: str, price: str) -> None:
    client = Client.from_key_file(url, key_file, cod=False)  # the offer stands also when this program does not
    events = client.events()
    async with client:
        await client.nominate(symbol, int(lots))
        position = (await client.positions(symbol))[0]
        print(f"{position.capacity} lots of {symbol} nominated, bond {position.bond}")
        ack = await client.place(symbol, "sell", qty=int(lots), px=price)
        print(f"offer {ack.oid} is {ack.status}", flush=True)
        await follow(client, events, symbol)


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:6]))
