package android.app

import android.content.Context
import android.os.Bundle

abstract class Application : Context()

abstract class Activity : Context() {
    protected open fun onCreate(savedInstanceState: Bundle?): Unit = TODO()

    protected open fun onStop(): Unit = TODO()
}
