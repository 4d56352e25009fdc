"""A small bilingual shop: examples to train from and held-out questions, for the tests of the intent model."""

from __future__ import annotations

from chatflow_models.training import Example

_BY_INTENT = {
    "refund": [
        "怎么申请退款",
        "我要退款",
        "退款多久到账",
        "钱什么时候退给我",
        "不想要了能退钱吗",
        "退款一直没有到",
        "how do i get a refund",
        "i want my money back",
        "when will my refund arrive",
        "refund my last purchase",
        "the refund has not come yet",
        "can you return my money",
    ],
    "delivery": [
        "我的快递到哪了",
        "包裹什么时候能到",
        "物流信息一直不更新",
        "什么时候发货",
        "快递几天能到",
        "查一下我的物流",
        "where is my parcel",
        "track my package",
        "when will my order be delivered",
        "my delivery is late",
        "has my parcel shipped yet",
        "how long does shipping take",
    ],
    "invoice": [
        "能开发票吗",
        "怎么开发票",
        "我要电子发票",
        "发票抬头写错了",
        "发票怎么下载",
        "可以补开发票吗",
        "i need an invoice",
        "send me the invoice",
        "my invoice has the wrong name",
        "where can i download the invoice",
        "can i get a tax invoice",
        "issue an invoice for my company",
    ],
    "coupon": [
        "优惠券怎么用",
        "优惠券过期了",
        "哪里可以领优惠券",
        "优惠券用不了",
        "优惠码在哪里输入",
        "优惠券能叠加吗",
        "how do i use a coupon",
        "my coupon does not work",
        "where do i enter the promo code",
        "the coupon has expired",
        "can i combine two coupons",
        "give me a discount coupon",
    ],
    "out_of_scope": [
        "你们公司在招人吗",
        "帮我投诉隔壁邻居",
        "我家的电视机坏了谁来修",
        "are you hiring at the moment",
        "can you fix my television",
        "what do you think of your competitors",
    ],
}

EXAMPLES = [Example(text, intent) for intent, texts in _BY_INTENT.items() for text in texts]
WITHOUT_OUT_OF_SCOPE = [example for example in EXAMPLES if example.intent != "out_of_scope"]

HELD_OUT = [
    Example("请问退款要几天才能到账", "refund"),
    Example("please refund my money", "refund"),
    Example("我的包裹到哪里了", "delivery"),
    Example("when does my parcel arrive", "delivery"),
    Example("发票在哪里下载呢", "invoice"),
    Example("can you send an invoice to me", "invoice"),
    Example("这张优惠券为什么用不了", "coupon"),
    Example("the coupon code does not work", "coupon"),
]

FAR_AWAY = [
    "鲸鱼为什么要浮上水面呼吸",
    "推荐一部老电影给我",
    "火星上的一天有多长",
    "why do whales sing",
    "who built the pyramids",
    "translate this sentence into portuguese",
]
